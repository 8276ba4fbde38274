"""What the engine is compared with: the same values, computed in other ways."""
