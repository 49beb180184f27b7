"""What must stay as it was when the code is arranged anew; `record` writes it down."""
