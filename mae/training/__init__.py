"""LightningModules and callbacks: the only room that knows Lightning."""
