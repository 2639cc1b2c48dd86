"""The models as an MLflow folder."""
