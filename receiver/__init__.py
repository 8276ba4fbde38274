"""What a live server needs to stand in for an OAP."""
