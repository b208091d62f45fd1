#!/usr/bin/env python3
"""A reader of ferry's bundles, written from docs/format.md and from nothing else.

    reader.py [--key FILE]... [--require N] BUNDLE...

It checks all that the page says and prints a line of JSON for each: the name, the version, how many blobs, who signed; `null` for one that is
refused, with a line on standard error that says why, and exit code 3. The standard library has neither Ed25519 nor ECDSA: both stand below, for checking only, and slow.
"""

import base64
import hashlib
import json
import os
import re
import sys

BLOCK = 512
LIMITS = {"SHA256SUMS": 64 << 20, "SHA256SUMS.minisig": 4 << 10, "ferry.json": 256 << 20}
OTHER_LIMIT = 64 << 20
HEX = re.compile(r"[0-9a-f]{64}")
LABEL = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")


class Refused(Exception):
    """What does not hold."""


def need(holds, why):
    if not holds:
        raise Refused(why)


# ---- Ed25519 (RFC 8032) and ECDSA over P-256 (FIPS 186-5)

Q = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, Q) % Q
ROOT = pow(2, (Q - 1) // 4, Q)


def ed_x(y, sign):
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, Q) % Q
    x = pow(x2, (Q + 3) // 8, Q)
    if (x * x - x2) % Q:
        x = x * ROOT % Q
    if (x * x - x2) % Q or (x == 0 and sign):
        return None
    return Q - x if x % 2 != sign else x


def ed_point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    x = ed_x(y, sign) if y < Q else None
    return None if x is None else (x, y, 1, x * y % Q)


def ed_add(a, b):
    p, q = (a[1] - a[0]) * (b[1] - b[0]) % Q, (a[1] + a[0]) * (b[1] + b[0]) % Q
    r, s = 2 * a[3] * b[3] * D % Q, 2 * a[2] * b[2] % Q
    e, f, g, h = q - p, s - r, s + r, q + p
    return (e * f % Q, g * h % Q, f * g % Q, e * h % Q)


def ed_times(n, point):
    result = (0, 1, 1, 0)
    while n:
        if n & 1:
            result = ed_add(result, point)
        point, n = ed_add(point, point), n >> 1
    return result


ED_BASE_Y = 4 * pow(5, -1, Q) % Q
ED_BASE_X = ed_x(ED_BASE_Y, 0)
ED_BASE = (ED_BASE_X, ED_BASE_Y, 1, ED_BASE_X * ED_BASE_Y % Q)


def ed25519(key, message, signature):
    if len(key) != 32 or len(signature) != 64:
        return False
    a, r, s = ed_point(key), ed_point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    left, right = ed_times(s, ED_BASE), ed_add(r, ed_times(h, a))
    return all((left[i] * right[2] - right[i] * left[2]) % Q == 0 for i in (0, 1))


P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
     0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def ec_add(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P) if a == b else (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return (x, (slope * (a[0] - x) - a[1]) % P)


def ec_times(n, point):
    result = None
    while n:
        if n & 1:
            result = ec_add(result, point)
        point, n = ec_add(point, point), n >> 1
    return result


def der_integers(data):
    """The two integers of a DER sequence, or None where it is not as DER asks."""
    if len(data) < 2 or data[0] != 0x30 or data[1] != len(data) - 2 or data[1] > 127:
        return None
    found, rest = [], data[2:]
    while rest:
        if len(rest) < 3 or rest[0] != 2 or not 1 <= rest[1] <= len(rest) - 2:
            return None
        number, rest = rest[2:2 + rest[1]], rest[2 + rest[1]:]
        if number[0] & 0x80 or (len(number) > 1 and number[0] == 0 and not number[1] & 0x80):
            return None
        found.append(int.from_bytes(number, "big"))
    return found if len(found) == 2 else None


def ecdsa(point, message, signature):
    x, y = int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big")
    pair = der_integers(signature)
    if pair is None or x >= P or y >= P or (y * y - x * x * x + 3 * x - B) % P:
        return False
    r, s = pair
    if not (0 < r < N and 0 < s < N):
        return False
    e, w = int.from_bytes(hashlib.sha256(message).digest(), "big"), pow(s, -1, N)
    sum_ = ec_add(ec_times(e * w % N, G), ec_times(r * w % N, (x, y)))
    return sum_ is not None and sum_[0] % N == r


# ---- keys and signatures

P256_DER = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
ED25519_DER = bytes.fromhex("302a300506032b6570032100")


def strict_base64(text):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data) == (text if isinstance(text, bytes) else text.encode()) else None


def read_key(path):
    """(kind, id, key) of a public key's file."""
    text = open(path, encoding="ascii").read()
    pem = re.search(r"-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", text, re.S)
    if pem:
        der = base64.b64decode("".join(pem[1].split()))
        for kind, prefix, size in (("p256", P256_DER, 65), ("ed25519", ED25519_DER, 32)):
            if der.startswith(prefix) and len(der) == len(prefix) + size:
                return kind, hashlib.sha256(der).hexdigest(), der[len(prefix):]
        raise SystemExit(f"{path}: no key of a known kind")
    data = strict_base64(text.strip().splitlines()[-1])
    if data is None or len(data) != 42 or data[:2] != b"Ed":
        raise SystemExit(f"{path}: no public key of minisign's")
    return "minisign", key_id(data[2:10]), data[10:]


def key_id(data):
    return f"{int.from_bytes(data, 'little'):016X}"


def take_apart(text):
    """(untrusted comment, kind and id and signature, trusted comment, global signature) of a signature file, or None."""
    lines = text.split("\n")
    if len(lines) != 5 or lines[4]:
        return None
    untrusted, first, trusted, last = lines[:4]
    first, last = strict_base64(first), strict_base64(last)
    if not untrusted.startswith("untrusted comment: ") or not trusted.startswith("trusted comment: "):
        return None
    if first is None or last is None or len(first) != 74 or len(last) != 64 or first[:2] not in (b"ED", b"Ed"):
        return None
    return untrusted[19:], first, trusted[17:], last


def minisign_holds(key, sums, first, trusted, last):
    message = hashlib.blake2b(sums).digest() if first[:2] == b"ED" else sums
    return ed25519(key, message, first[10:]) and ed25519(key, first[10:] + trusted.encode(), last)


def inside(sums, text, keys):
    """The trusted key of the signature inside the bundle, or None; and its trusted comment."""
    parts = take_apart(text)
    need(parts, "the signature is not in its form")
    untrusted, first, trusted, last = parts
    named = key_id(first[2:10])
    need(first[:2] == b"ED" and untrusted == f"signature of a ferry bundle by key {named}", "the signature is not in its form")
    of_that_name = [k for k in keys if k[0] == "minisign" and k[1] == named]
    holds = [k for k in of_that_name if minisign_holds(k[2], sums, first, trusted, last)]
    need(holds or not of_that_name, f"the signature is not by key {named}, which it names")
    return holds[0] if holds else None, trusted


def beside(path, sums, keys):
    """The keys whose signatures stand in files beside the bundle."""
    folder, name = os.path.split(os.path.abspath(path))
    found = []
    there = set(os.listdir(folder))
    for file in sorted(there):
        match = re.fullmatch(re.escape(name) + r"\.(.+)\.(minisig|sig)", file)
        if not match or match[1] == "sha256":
            continue
        dots = [i for i, c in enumerate(match[1]) if c == "."]
        if any(f"{name}.{match[1][:i]}" in there or f"{name}.{match[1][:i]}.001" in there for i in dots):
            continue
        content = open(os.path.join(folder, file), "rb").read((4 << 10) + 1)
        need(len(content) <= 4 << 10, f"{file} is too large")
        if match[2] == "sig":
            found += cosign(file, match[1], sums, content, keys)
        else:
            found += minisign(file, match[1], sums, content, keys)
    return found


def minisign(file, label, sums, content, keys):
    parts = take_apart(content.decode("utf-8", "replace").replace("\r\n", "\n"))
    ours = [k for k in keys if k[0] == "minisign"]
    if parts is None:
        need(all(k[1] != label for k in ours), f"{file} has the name of key {label}, and is no signature")
        return []
    untrusted, first, trusted, last = parts
    named = key_id(first[2:10])
    for key in ours:
        if minisign_holds(key[2], sums, first, trusted, last):
            need(key[1] == named, f"{file} names another key than the one that made it")
            ferrys = f"signature of a ferry bundle by key {named}"
            free = not trusted.startswith("bundle ") or untrusted in (ferrys, "signature from minisign secret key")
            need(free, f"the untrusted comment of {file} was changed")
            return [key]
    claims = [k for k in ours if k[1] in (named, label) or untrusted == f"signature of a ferry bundle by key {k[1]}"]
    need(not claims, f"{file} is not a signature of this bundle by key {label}")
    return []


def cosign(file, label, sums, content, keys):
    signature = strict_base64(content.replace(b"\r", b"").replace(b"\n", b""))
    for key in keys:
        if key[0] == "minisign" or signature is None:
            continue
        if (ecdsa if key[0] == "p256" else ed25519)(*((key[2], sums, signature))):
            return [key]
    named = [k for k in keys if k[0] != "minisign" and label in (k[3], k[1], k[1][:12])]
    need(not named, f"{file} has the name of a trusted key, and is not its signature")
    return []


# ---- the tar


def header(name, size):
    """The only header that a member of this name and size may have."""
    prefix, rest = "", name
    if len(name) > 100:
        places = [i for i, c in enumerate(name) if c == "/" and len(name) - i - 1 <= 100]
        need(places and places[0] <= 155 and places[0] + 1 < len(name), f"the name `{name}` cannot be carried")
        prefix, rest = name[:places[0]], name[places[0] + 1:]
    block = bytearray(BLOCK)

    def put(at, data):
        block[at:at + len(data)] = data

    put(0, rest.encode("ascii"))
    put(100, b"0000755\0" if name == "bin/ferry" else b"0000644\0")
    put(108, b"0000000\0")
    put(116, b"0000000\0")
    put(124, b"%011o\0" % size if size < 1 << 33 else b"\x80\0\0\0" + size.to_bytes(8, "big"))
    put(136, b"00000000000\0")
    put(148, b" " * 8)
    put(156, b"0")
    put(257, b"ustar\00000")
    put(329, b"0000000\0")
    put(337, b"0000000\0")
    put(345, prefix.encode("ascii"))
    put(148, b"%06o\0 " % sum(block))
    return bytes(block)


def said_size(block):
    """The size that a header says, if it says any."""
    field = block[124:136]
    if field[:4] == b"\x80\0\0\0":
        return int.from_bytes(field[4:], "big")
    return int(field[:11], 8) if re.fullmatch(rb"[0-7]{11}\0", field) else None


class Tar:
    """A position in the file."""

    def __init__(self, path):
        self.file = open(path, "rb")
        self.length = os.path.getsize(path)
        self.at = 0

    def read(self, size):
        need(self.at + size <= self.length, f"truncated: {self.length} bytes of at least {self.at + size}")
        data = self.file.read(size)
        self.at += size
        return data

    def peek(self):
        """The name in the next header."""
        block = self.read(BLOCK)
        self.file.seek(-BLOCK, 1)
        self.at -= BLOCK
        return block[:100].split(b"\0")[0]

    def member(self, name, size=None, keep=True):
        """Content and digest of the next member, which must be `name`."""
        block = self.read(BLOCK)
        size = said_size(block) if size is None else size
        need(size is not None and block == header(name, size), f"the header of `{name}` is not as it must be")
        need(not keep or size <= LIMITS.get(name, OTHER_LIMIT), f"`{name}` is too large")
        digest, content, left = hashlib.sha256(), b"", size
        while left:
            piece = self.read(min(left, 1 << 20))
            digest.update(piece)
            content, left = content + piece if keep else b"", left - len(piece)
        need(not any(self.read(-size % BLOCK)), f"the padding after `{name}` is not zero")
        return content, digest.hexdigest()

    def end(self):
        need(not any(self.read(2 * BLOCK)), "the end marker is not zero")
        need(self.at == self.length, "something follows the end")


# ---- the documents


def fields(value, where, must, may=()):
    need(isinstance(value, dict), f"{where} is no object")
    unknown = [k for k in value if k not in must and k not in may]
    need(not unknown, f"{where} has the unknown field `{''.join(unknown[:1])}`")
    missing = [k for k in must if k not in value]
    need(not missing, f"{where} has no `{''.join(missing[:1])}`")


def once(pairs):
    need(len({k for k, _ in pairs}) == len(pairs), "a key stands twice in an object")
    return dict(pairs)


def a_digest(text, where):
    need(isinstance(text, str) and text[:7] == "sha256:" and HEX.fullmatch(text[7:]), f"{where} is no digest")
    return text[7:]


def a_size(number, where):
    need(type(number) is int and 0 <= number < 1 << 60, f"{where} is no size")
    return number


def carried_name(name, prefix):
    need(isinstance(name, str) and re.fullmatch(r"[ -\[\]-~]+", name), f"the name {name!r} cannot be carried")
    need(all(part not in ("", ".", "..") for part in name.split("/")), f"the name `{name}` cannot be carried")
    need(name.startswith(prefix) or (prefix == "files/" and name == "bin/ferry"), f"`{name}` is not below {prefix}")


def check_head(head):
    """The head by itself; its blobs by digest."""
    fields(head, "the head", ("format", "name", "platforms", "layout", "images", "blobs"),
           ("version", "absent", "yaml", "files", "set", "ignore", "bases", "relies"))
    for label in ("name", "version"):
        need(label not in head or LABEL.fullmatch(head[label]), f"the {label} is not as it must be")
    need("@" not in head["name"], "the name contains `@`")
    need(head["layout"] in ("path", "host", "flat"), "the layout is unknown")
    blobs, total, offset = {}, 0, 0
    for blob in head["blobs"]:
        fields(blob, "a blob", ("digest", "size", "offset"))
        hexes, size = a_digest(blob["digest"], "a blob"), a_size(blob["size"], "a blob")
        need(hexes not in blobs, f"blob {hexes} is listed twice")
        need(blob["offset"] == offset + BLOCK, f"blob {hexes} is said to stand elsewhere")
        blobs[hexes] = size
        offset, total = offset + BLOCK + size + -size % BLOCK, total + size
    relies, last = {}, ""
    for relied in head.get("relies", []):
        fields(relied, "a blob relied on", ("digest", "size"), ("repositories",))
        hexes = a_digest(relied["digest"], "a blob relied on")
        need(hexes not in blobs and hexes > last, "the blobs relied on are not in their order, or carried")
        relies[hexes], last = a_size(relied["size"], "a blob relied on"), hexes
        total += relies[hexes]
    for base in head.get("bases", []):
        fields(base, "a base", ("name",), ("version", "sums"))
    need(not relies or head.get("bases"), "no base is named for the blobs relied on")
    for prefix in ("yaml/", "files/"):
        for file in head.get(prefix[:-1], []):
            fields(file, "a file", ("path", "digest", "size"))
            carried_name(file["path"], prefix)
            a_digest(file["digest"], file["path"])
            total += a_size(file["size"], file["path"])
    need(total < 1 << 60, "the sizes add up to too much")
    names = [file["path"].lower() for key in ("yaml", "files") for file in head.get(key, [])]
    need(len(set(names)) == len(names), "two names differ in case only")
    below = {name[:i] for name in names for i, c in enumerate(name) if c == "/"}
    need(not below & set(names), "a name is a folder of another")
    need("bin/ferry" not in [f["path"] for f in head.get("files", [])[:-1]], "`bin/ferry` is not the last file")
    for rule in head.get("set", []):
        fields(rule, "a rule", ("paths", "image"), ("file", "kind", "form"))
    for key in ("absent", "ignore"):
        for entry in head.get(key, []):
            fields(entry, f"an entry of `{key}`", ("reference" if key == "absent" else "image", "reason"))
    return blobs, relies


def descriptors(image):
    return [image["root"]] + [p["manifest"] for p in image["platforms"]] + image.get("referrers", [])


def check_images(head, blobs):
    seen = set()
    for image in head["images"]:
        fields(image, "an image", ("reference", "source", "root", "platforms"), ("target", "referrers", "verified"))
        where = image["reference"]
        need(where not in seen, f"{where} is listed twice")
        seen.add(where)
        for platform in image["platforms"]:
            fields(platform, f"a platform of {where}", ("manifest",), ("platform",))
        for descriptor in descriptors(image):
            hexes = a_digest(descriptor["digest"], where)
            need(blobs.get(hexes) == descriptor["size"], f"{where}: {hexes} is not among the blobs with that size")
        subjects = [d["digest"] for d in [image["root"]] + [p["manifest"] for p in image["platforms"]]]
        for verified in image.get("verified", []):
            fields(verified, f"a signature of {where}", ("key", "keyFile", "subject", "signature"))
            need(verified["subject"] in subjects, f"{where}: what is said to be signed is no manifest of it")


CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")


def is_foreign(descriptor):
    return "nondistributable" in descriptor.get("mediaType", "") or "foreign" in descriptor.get("mediaType", "")


def is_gzip_or_raw(descriptor):
    return descriptor["mediaType"].endswith((".tar", ".tar+gzip", ".tar.gzip", ".tar.gz"))


def check_documents(head, small, blobs, relies):
    """Every blob that a carried manifest names is there; index.json and manifest.json are what follows from them."""

    def load(descriptor):
        return json.loads(small[descriptor["digest"][7:]])

    def parts(document):
        return document["manifests"] if "manifests" in document else [document["config"]] + document.get("layers", [])

    def whole(descriptor, where):
        """Of an index, all: used for referrers."""
        document = load(descriptor)
        for part in parts(document):
            size = blobs.get(part["digest"][7:], relies.get(part["digest"][7:]))
            need(size == part["size"] or (size is None and is_foreign(part)), f"{where}: {part['digest']} is not there")
            if "manifests" in document:
                whole(part, where)

    def lacks(descriptor):
        document = load(descriptor)
        if "manifests" in document:
            return any(lacks(d) for d in document["manifests"] if d["digest"][7:] in small)
        return any(part["digest"][7:] in relies for part in parts(document))

    def is_container(descriptor):
        return load(descriptor)["config"].get("mediaType") in CONFIGS

    entries, docker, plain = [], [], []
    for image in head["images"]:
        manifests = [p["manifest"] for p in image["platforms"]]
        for descriptor in manifests + image.get("referrers", []):
            whole(descriptor, image["reference"])
        if not any(lacks(m) for m in manifests):
            if any(is_container(m) for m in manifests):
                entries.append((image["root"]["digest"], image["reference"]))
                plain.append(image["root"]["digest"])
            elif image["root"]["digest"] not in plain:
                entries.append((image["root"]["digest"], None))
                plain.append(image["root"]["digest"])
        first = load(manifests[0]) if manifests else None
        if first and is_container(manifests[0]) and all(is_gzip_or_raw(l) for l in first["layers"]) \
                and all(part["digest"][7:] in blobs for part in parts(first)):
            path = lambda d: "blobs/sha256/" + d["digest"][7:]
            tags = None if "@" in image["reference"] else [image["reference"]]
            docker.append({"Config": path(first["config"]), "RepoTags": tags, "Layers": [path(l) for l in first["layers"]]})
    for image in head["images"]:
        for referrer in image.get("referrers", []):
            if not lacks(referrer) and referrer["digest"] not in plain:
                entries.append((referrer["digest"], None))
                plain.append(referrer["digest"])
    index = json.loads(small["index.json"])
    need(index["schemaVersion"] == 2 and index["mediaType"] == "application/vnd.oci.image.index.v1+json", "index.json")
    found = []
    for entry in index["manifests"]:
        notes = entry.get("annotations", {})
        names = {notes.get("org.opencontainers.image.ref.name"), notes.get("io.containerd.image.name")}
        need(len(names) == 1 and len(notes) in (0, 2), "an entry of index.json has other annotations")
        need(blobs.get(entry["digest"][7:]) == entry["size"], "an entry of index.json has another size")
        found.append((entry["digest"], names.pop()))
    need(found == entries, f"index.json lists other images than the head: {found} and not {entries}")
    need(json.loads(small["manifest.json"]) == docker, "manifest.json lists other images than the head")


def read(path, keys, require):
    """Everything, in the order in which it may be believed."""
    tar = Tar(path)
    need(tar.peek() == b"SHA256SUMS", "its first member is not SHA256SUMS")
    sums, sums_digest = tar.member("SHA256SUMS")
    signature = tar.member("SHA256SUMS.minisig")[0] if tar.peek() == b"SHA256SUMS.minisig" else None
    signature = None if signature is None else signature.decode("utf-8", "replace")
    signer, comment = (None, None) if signature is None else inside(sums, signature, keys)
    signers = {key[2]: key for key in [signer] + beside(path, sums, keys) if key}
    need(len(signers) >= require, f"signed by {len(signers)} of the trusted keys, and {require} are required")

    lines = sums.decode("ascii").split("\n")
    need(lines.pop() == "", "SHA256SUMS does not end in a line feed")
    listed = []
    for line in lines:
        need(HEX.fullmatch(line[:64]) and line[64:66] == "  " and line[66:], "a line of SHA256SUMS is not in its form")
        listed.append((line[66:], line[:64]))
    small = {}
    for i, name in enumerate(("ferry.json", "oci-layout", "index.json", "manifest.json")):
        content, digest = tar.member(name)
        need(i < len(listed) and listed[i] == (name, digest), f"{name} is not as listed")
        small[name] = content
    head = json.loads(small["ferry.json"], object_pairs_hook=once)
    need(isinstance(head, dict) and head.get("format") == 1, "the format is not 1")
    blobs, relies = check_head(head)
    version = f" version {head['version']}" if "version" in head else ""
    need(comment in (None, f"bundle {head['name']}{version}"), "the trusted comment does not name this bundle")
    check_images(head, blobs)
    need(small["oci-layout"] == b'{"imageLayoutVersion":"1.0.0"}', "oci-layout is not as it must be")
    files = [(f["path"], f["digest"][7:], f["size"]) for key in ("yaml", "files") for f in head.get(key, [])]
    follow = files + [(f"blobs/sha256/{hexes}", hexes, size) for hexes, size in blobs.items()]
    need(listed[4:] == [(name, digest) for name, digest, _ in follow], "SHA256SUMS does not list what the head lists")

    documents = {d["digest"][7:] for image in head["images"] for d in descriptors(image)}
    for name, digest, size in follow:
        # manifests that an index names, too
        keep = digest in documents and name.startswith("blobs/")
        content, found = tar.member(name, size, keep=keep or size < 1 << 20)
        need(found == digest, f"`{name}` is damaged")
        small[digest] = content
    tar.end()
    check_documents(head, small, blobs, relies)
    return {
        "name": head["name"], "version": head.get("version"), "sums": sums_digest, "blobs": len(blobs),
        "relies": len(relies), "images": [image["reference"] for image in head["images"]],
        "files": [name for name, _, _ in files], "signers": sorted(key[1] for key in signers.values()),
    }


def main(arguments):
    keys, require, bundles = [], None, []
    while arguments:
        argument = arguments.pop(0)
        if argument == "--key":
            path = arguments.pop(0)
            keys.append((*read_key(path), os.path.splitext(os.path.basename(path))[0]))
        elif argument == "--require":
            require = int(arguments.pop(0))
        else:
            bundles.append(argument)
    if not bundles:
        raise SystemExit(__doc__)
    # without keys nothing is trusted, and the rest is checked all the same
    require = require if require is not None else min(len(keys), 1)
    refused = 0
    for bundle in bundles:
        try:
            print(json.dumps(read(bundle, keys, require)))
        except (Refused, ValueError, KeyError, TypeError, AttributeError) as error:
            print("null")
            print(f"refused: {bundle}: {error}", file=sys.stderr)
            refused = 3
    return refused


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
