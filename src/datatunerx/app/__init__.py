"""Settings, and the one function that joins the parts."""
