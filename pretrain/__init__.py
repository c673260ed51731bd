"""Images in, checkpoint out: MoCo v1 and v2."""
