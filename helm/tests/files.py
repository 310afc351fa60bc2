"""The files and variables that the container of the broker would see, laid out below a folder."""

import base64
import os
import re
import subprocess

from chart import REPOSITORY, broker, configuration

BINARY = os.environ.get("UPLOAD_BROKER") or str(REPOSITORY / "target" / "debug" / "upload-broker")
SECRETS = "/run/secrets/upload-broker/"
# What the Secrets hold that variables name.
SECRET_VALUES = {
    "url": "rediss://:s%40cret@10.10.0.3:6378",
    "redis-password": "s%40cret",
    "https-proxy": "http://me:s%40cret@proxy",
}
# What a value file of the tests cannot hold, because it is made anew each time.
PLACEHOLDERS = {"extra-roots.pem": "tls.crt", "jwks.json": "jwks.json"}


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)


def made(command, **options):
    done = run(*command, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr}")
    return done.stdout


def make_material(folder):
    """A certificate, an issuer's key set and a token of it."""
    made(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ),
            # Not an authority's, which the broker's own client would take from no server.
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-keyout", folder / "tls.key", "-out", folder / "tls.crt"),
        ]
    )
    (folder / "jwks.json").write_text(made([BINARY, "token", "--key", folder / "issuer.pem", "--jwks"]))


def lay_out(found, folder):
    """Writes what would be mounted below `folder`. Returns the path of the configuration, and the environment."""
    material = folder / "material"
    material.mkdir()
    make_material(material)
    mounted = folder / "secrets"
    etc = folder / "etc"
    etc.mkdir()
    container = broker(found)
    directories = [mount["mountPath"] for mount in container["volumeMounts"]]
    for name, text in configuration(found)["data"].items():
        for path in re.findall(rf"{SECRETS}[^\"']+", text):
            directory, file = path.rsplit("/", 1)
            if directory not in directories:
                raise AssertionError(f"{path} is named, and nothing is mounted there")
            local = mounted / directory.removeprefix(SECRETS)
            local.mkdir(parents=True, exist_ok=True)
            (local / file).write_text(secret(directory, file, material))
        if name in PLACEHOLDERS:
            text = (material / PLACEHOLDERS[name]).read_text()
        (etc / name).write_text(text.replace(SECRETS, f"{mounted}/"))
    return etc / "config.toml", environment(container)


def secret(directory, file, material):
    """What stands in such a file."""
    if file in ("tls.crt", "ca.crt"):
        return (material / "tls.crt").read_text()
    if file == "tls.key":
        return (material / "tls.key").read_text()
    if directory.endswith("/session-keys"):
        return base64.b64encode(os.urandom(32)).decode()
    return "a token"


def environment(container):
    """The variables as the kubelet would set them."""
    variables = {"PATH": os.environ["PATH"]}
    for variable in container["env"]:
        if "valueFrom" in variable:
            value = SECRET_VALUES[variable["valueFrom"]["secretKeyRef"]["key"]]
        else:
            value = re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), variable["value"])
        variables[variable["name"]] = value
    return variables
