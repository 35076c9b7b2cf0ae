"""A broker for uploads by browsers into S3, see README.md: broker.py PORT BUCKET S3_ENDPOINT CONNECTION_STRING"""

import http.server
import json
import os
import re
import sys
import threading

from botocore.exceptions import ClientError

import uploads
from uploads import ANSWERS, UUID, Answer, demand, sqlstate


class Handler(http.server.BaseHTTPRequestHandler):
    default_request_version = "HTTP/1.0"  # with HTTP/0.9, what is not HTTP would have an answer without a status
    timeout = float(os.environ.get("CLIENT_TIMEOUT", 60))  # seconds that a client may be silent

    def handle_request(self):
        """Answers a request; whatever goes wrong has its answer, too."""
        self.owner = self.headers.get("X-Remote-User", "")
        try:
            reply = self.route(self.body())
        except Answer as answer:
            reply = answer.args[0], {"error": answer.args[1]}
        except ClientError as error:  # S3 refuses, as with an ETag that is not the part's
            reply = 409 if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500 else 503, {"error": error.response["Error"]["Code"]}
        except Exception as error:
            state = sqlstate(error)
            status = ANSWERS.get(state) or ANSWERS.get(state[:2], 500)
            reply = status, {"error": "internal error" if status == 500 else str(error).partition("\n")[0]}
            self.log_error("%r", error)
        text = json.dumps(reply[1]).encode()
        self.send_response(reply[0])
        self.send_header("Content-Length", len(text))
        if reply[0] in (423, 503):
            self.send_header("Retry-After", 1)
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_request

    def send_error(self, code, *texts):
        """Answers what http.server itself refuses.  An unknown method or version is the client's error."""
        super().send_error({501: 405, 505: 400}.get(code, code), *texts)

    def body(self):
        """The JSON object that a client sends, if it sends something."""
        length = re.fullmatch("[0-9]{1,5}", self.headers.get("Content-Length", "0"))
        demand(length, 413, "that is too large, or Content-Length is wrong")
        try:
            return dict(json.loads(self.rfile.read(int(length[0])) or b"{}"))
        except TimeoutError:
            raise Answer(408, "there is less than Content-Length says")
        except (TypeError, ValueError, RecursionError):
            raise Answer(400, "that is not a JSON object")

    def route(self, body):
        found = re.fullmatch(f"/uploads(?:/({UUID})(/sign|/complete|/parts/([0-9]{{1,5}}))?)?", self.path)
        demand(found, 404, "there is no such resource")
        upload_id, action, number = found.groups()
        if self.command == "POST" and upload_id is None:
            return 201, uploads.start(self.owner, body)
        demand(upload_id, 405, "no such method here")
        if self.command == "DELETE" and action is None:
            return 200 if uploads.query("SELECT delete_upload(%s, %s, reclaim_complete => true) AS found", upload_id, self.owner)[0].found else 404, {}
        upload = uploads.find(upload_id, self.owner)
        if self.command == "GET" and action is None:
            return 200, uploads.state(upload)
        if self.command == "POST" and action == "/sign":
            return 200, {"urls": uploads.sign(upload, body.get("parts"))}
        if self.command == "PUT" and number is not None:
            return 200, uploads.confirm(upload, int(number), body.get("etag"), body.get("sha256") or "")
        demand(self.command == "POST" and action == "/complete", 405, "no such method here")
        return 200, uploads.complete(upload)


if __name__ == "__main__":
    uploads.connect(*sys.argv[2:])
    threading.Thread(target=uploads.reclaim, daemon=True).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
