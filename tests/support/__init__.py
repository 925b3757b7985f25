"""What tests share: servers, programs as text, spools, records, traces read back."""
