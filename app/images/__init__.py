"""Images from outside: fetched, kept, refused or decoded."""
