"""What a party outside the computation needs: no TensorFlow, no shares of anyone else's."""
