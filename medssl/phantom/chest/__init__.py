"""The chest of the xray phantom: who (patient), how it absorbs (frontal, lateral), how it is shown (film)."""
