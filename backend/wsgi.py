"""For a WSGI server of your own: `gunicorn --threads 8 backend.wsgi:app`; serve does the same."""

from backend import settings
from backend.app import create_app

app = create_app(settings.load())
