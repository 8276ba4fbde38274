"""What many machines need and how far they lag, from costs that were measured on one."""
