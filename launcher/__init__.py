"""What people type: submit, resume, sync, init."""
