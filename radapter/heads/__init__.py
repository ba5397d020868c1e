"""From features of pictures to classes."""
