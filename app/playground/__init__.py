"""The playground: a web page to try the models, and the routes that serve it."""
