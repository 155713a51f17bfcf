"""The kinds of shares: data, and their linear algebra."""
