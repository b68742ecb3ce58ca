"""Speed side by side with peers. Each benchmark is a committed command that writes its figures under `results/`."""
