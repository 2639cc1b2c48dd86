"""The wire contract: what a request may say, what an answer says, and the forms of a mask."""
