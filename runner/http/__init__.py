"""HTTP: `app` makes the Flask app, `server` serves it."""
