"""From models as people write them to private programs."""
