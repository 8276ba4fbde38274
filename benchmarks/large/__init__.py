"""A large cluster, made fast: its Kubernetes objects, its logs minute by minute, and stores."""
