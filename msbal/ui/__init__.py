"""What a person sees in the terminal. Imports rich and the standard library only, never torch."""
