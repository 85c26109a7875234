"""Several people on one Label Studio: a user each, since it serves a user's own open task again."""

from __future__ import annotations

import httpx

from benchmarks.story.errors import StoryError

PASSWORD = "annotates-with-others"


def person_of(url: str, token: str, number: int) -> str:
    """The token of person `number`: 0 is whose token is given, others sign up or in.

    Raises StoryError where Label Studio lets nobody in.
    """
    if not number:
        return token
    email = f"annotator-{number}@example.com"
    with httpx.Client(base_url=url, trust_env=False, follow_redirects=True) as web:
        invitation = web.get("/api/invite", headers={"Authorization": f"Token {token}"})
        invitation.raise_for_status()
        for page in (invitation.json()["invite_url"], "/user/login/"):
            web.get(page)
            form = {
                "csrfmiddlewaretoken": web.cookies["csrftoken"], "email": email,
                "password": PASSWORD, "allow_newsletters": "false",
            }  # fmt: skip
            web.post(page, data=form, headers={"Referer": url})
            found = web.get("/api/current-user/token")
            if found.is_success:
                return str(found.json()["token"])
    raise StoryError(f"Label Studio doesn't let {email} in: {found.status_code} {found.text[:200]}")
