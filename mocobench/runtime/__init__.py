"""Services shared by the stages: devices, seeds, files, images, progress, the environment stamp."""
