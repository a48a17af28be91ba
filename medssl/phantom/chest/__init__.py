"""The chest that the xray phantom photographs: who (patient), how it absorbs (frontal, lateral), how it shows (film)."""
