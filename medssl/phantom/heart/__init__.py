"""The heart that the echo phantom films: its motion and volumes (ventricle), and how ultrasound sees it (sector)."""
