"""What a party outside the computation needs: no TensorFlow, no shares of anyone else's."""

__version__ = "0.1.0"
