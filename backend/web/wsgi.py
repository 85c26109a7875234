"""The WSGI application, for a server of your own: `gunicorn --threads 8 backend.web.wsgi:app`."""

from backend import settings
from backend.web.app import create_app

app = create_app(settings.load())
