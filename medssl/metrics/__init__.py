"""Arrays in, numbers out: what a prediction was worth, and how sure that is.

Every metric takes `weights`: None, (N,), or (B, N), non-negative, one row a bootstrap draw of patients
(`intervals.patient_weights`); it returns a float, or (B,) for (B, N). Weights act as repetitions of the rows.
"""
