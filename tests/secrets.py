"""Secrets that users have in their environments, with a value that is looked for where none may be."""

from __future__ import annotations

SECRETS = (
    *("WANDB_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"),
    *("AZURE_STORAGE_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY", "LIENZO_TOKEN"),
)
CANARY = "canary0123456789canary0123456789canary01"  # as long as a key of W&B
