"""What a running process needs: workers, progress, the output folder and its lock, memory, disk, the command line."""
