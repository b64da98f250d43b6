"""
Bake images on this host: make layers, test, verify, export and remove images.

The runner ``image`` calls these functions, as root on the host that the master config names as
``immutable:builder``. Operators use the runner.
"""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

try:
    from saltext.immutable import arguments, spec
    from saltext.immutable.builder.export import formats as exporting
    from saltext.immutable.builder.local import LOCAL
    from saltext.immutable.host import Host

    MISSING = None
except ImportError as err:
    MISSING = f"a builder needs the extra 'master': pip install 'saltext-immutable[master]' ({err})"

__virtualname__ = "image"


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


def _call(name, **kwargs):
    host = Host(spec.settings(__opts__).root)
    with host.explain_full_disk():
        return LOCAL[name](host, **kwargs)


def sources(suite: str, components: list, mirror: str | None = None):
    """
    Return the sources.list lines that a bake of a suite uses on this host.

    suite
        The suite: ``bookworm``.

    components
        Its components, a list: ``[main, contrib]``.

    mirror
        The mirror of the recipe; without one, the mirrors of this host.

    CLI Example:

    .. code-block:: bash

        salt-call image.sources bookworm '[main]'
    """
    return _call("sources", suite=suite, components=components, mirror=mirror)


def find_layer(key: str):
    """
    Return the layer that was built last for a key, or None. Of a damaged one, ``digest`` and ``damaged``: why.

    CLI Example:

    .. code-block:: bash

        salt-call image.find_layer 5f1d...
    """
    return _call("find_layer", key=key)


def keep_layer(key: str, digest: str, warnings: list | tuple = (), about: dict | None = None):
    """
    Record that a key leads to a layer.

    key
        The hash of what the layer was made from.

    digest
        The layer.

    warnings
        Sentences for the operator.

    about
        Metadata that depends on the layers below.

    CLI Example:

    .. code-block:: bash

        salt-call image.keep_layer 5f1d... 3f2a9c1d04be...
    """
    return _call("keep_layer", key=key, digest=digest, warnings=warnings, about=about)


def make_key(bake_id: str, master_key: str):
    """
    Make the key pair of a bake and return its public half (PEM). The private half never leaves this host.

    ``master_key``: the public key of the master (PEM), which is kept beside it.

    CLI Example:

    .. code-block:: bash

        salt-call image.make_key web-bake.example.com "$(cat /etc/salt/pki/master/master.pub)"
    """
    return _call("make_key", bake_id=bake_id, master_key=master_key)


def debian_layer(order: dict):
    """
    Make the root layer of a Debian or Ubuntu image with mmdebstrap, and return it.

    order
        A mapping with what, suite, packages, components and mirror.

    CLI Example:

    .. code-block:: bash

        salt-call image.debian_layer '{what: debian bookworm, suite: bookworm, ...}'
    """
    return _call("debian_layer", order=order)


def root_content(order: dict):
    """
    Return the hash of an existing root as it is now.

    order
        A mapping with the path on this host, as tarball or directory.

    CLI Example:

    .. code-block:: bash

        salt-call image.root_content '{tarball: /srv/root.tar.zst}'
    """
    return _call("root_content", order=order)


def kernel_content(order: dict):
    """
    Return the hashes of a kernel of this host and its initial RAM disk, from which a virtual machine bakes.

    order
        ``vmlinuz`` and ``initrd`` (paths)

    CLI Example:

    .. code-block:: bash

        salt-call image.kernel_content '{vmlinuz: /boot/vmlinuz-6.1, initrd: /boot/initrd.img-6.1}'
    """
    return _call("kernel_content", order=order)


def root_layer(order: dict):
    """
    Make the lowest layer of an image from an existing root, and return it.

    order
        A mapping with what, the path as tarball or directory, and sha256.

    CLI Example:

    .. code-block:: bash

        salt-call image.root_layer '{what: tarball /srv/root.tar.zst, tarball: /srv/root.tar.zst, sha256: 3f2a...}'
    """
    return _call("root_layer", order=order)


def oci_content(order: dict):
    """
    Return what an OCI image has now: ``image``, the digest of its manifest, and ``layers``, the sha256 of each layer.

    order
        A mapping with oci (a name with its registry, or a path on this host), insecure, and offline (only the cache
        answers).

    CLI Example:

    .. code-block:: bash

        salt-call image.oci_content '{oci: docker.io/library/debian:bookworm, insecure: false}'
    """
    return _call("oci_content", order=order)


def oci_layer(order: dict):
    """
    Make a layer from one layer of an OCI image, and return it.

    order
        A mapping with what, below (digests), oci, insecure, image, layers and number (of the layer, from 0).

    CLI Example:

    .. code-block:: bash

        salt-call image.oci_layer '{what: debian, below: [], oci: /srv/a.tar, image: 3f..., layers: [5a...], number: 0}'
    """
    return _call("oci_layer", order=order)


def minion_layer(order: dict):
    """
    Install Salt and this pack on a stack of layers, and return the new layer.

    order
        A mapping with what, below (digests), requirement, version, bridge and subnet.

    CLI Example:

    .. code-block:: bash

        salt-call image.minion_layer '{below: [3f2a...], requirement: salt==3008.3, ...}'
    """
    return _call("minion_layer", order=order)


def state_layer(order: dict):
    """
    Apply states in a temporary machine, and return the layer of what they changed.

    order
        A mapping with what, below (digests), bake_id, states, saltenv, pillarenv and more.

    CLI Example:

    .. code-block:: bash

        salt-call image.state_layer '{below: [3f2a...], bake_id: web-bake, states: highstate, ...}'
    """
    return _call("state_layer", order=order)


def apply_again(order: dict):
    """
    Apply states as a dry run to the layers that they made; return those that would change something, with comments.

    order
        A mapping as for ``state_layer``, with the layer of the states in below; and left (names of states).

    CLI Example:

    .. code-block:: bash

        salt-call image.apply_again '{below: [3f2a..., 8c1d...], bake_id: web-bake, states: highstate, left: [], ...}'
    """
    return _call("apply_again", order=order)


def candidates(order: dict):
    """
    Return the version of each package of a stack of layers that apt would install today.

    order
        A mapping with below (digests), bridge and subnet.

    CLI Example:

    .. code-block:: bash

        salt-call image.candidates '{below: [3f2a...], bridge: immutable0, subnet: 10.117.0.0/24}'
    """
    return _call("candidates", order=order)


def updates(order: dict):
    """
    Return the packages of a stack of layers that have updates: installed, candidate, security.

    order
        A mapping with below (digests), bridge and subnet.

    CLI Example:

    .. code-block:: bash

        salt-call image.updates '{below: [3f2a...], bridge: immutable0, subnet: 10.117.0.0/24}'
    """
    return _call("updates", order=order)


def make_image(order: dict, trusted: list | tuple = ()):
    """
    Make an image with its seal from finished layers, and return its metadata.

    order
        A mapping with recipe, layers (digests), read_only, grains, policy, salt and pack.

    trusted
        The public keys (base64) whose signatures count: an image with an invalid one is made again.

    CLI Example:

    .. code-block:: bash

        salt-call image.make_image '{recipe: web, layers: [3f2a...], read_only: true, grains: {}, policy: {}, ...}'
    """
    return _call("make_image", order=order, trusted=trusted)


def keep_proof(digest: str, proof: dict):
    """
    Store the signature and the provenance of an image beside it.

    CLI Example:

    .. code-block:: bash

        salt-call image.keep_proof 3f2a9c1d04be... '{signature: {...}, provenance: {...}}'
    """
    return _call("keep_proof", digest=digest, proof=proof)


def test_image(order: dict):
    """
    Launch a machine from an image, run the booted tests on it, and return their results.

    order
        A mapping with image (digest), bake_id, minion, bridge, subnet, within (seconds), secrets and tests.

    CLI Example:

    .. code-block:: bash

        salt-call image.test_image '{image: 3f2a9c1d04be..., bake_id: web-bake, tests: {...}, ...}'
    """
    return _call("test_image", order=order)


def test_disk(order: dict):
    """
    Boot a machine from the disk of an image, run the tests ``vm`` in it, and return their results.

    order
        A mapping as for ``image.test_image``, and vm: memory (bytes) and cpus.

    CLI Example:

    .. code-block:: bash

        salt-call image.test_disk '{image: 3f2a9c1d04be..., bake_id: web-bake, tests: {...}, vm: {...}, ...}'
    """
    return _call("test_disk", order=order)


def verify_image(digest: str, trusted: list):
    """
    Read an image in full; fail unless it is as it was signed.

    trusted
        The public keys (base64) whose signatures count.

    CLI Example:

    .. code-block:: bash

        salt-call image.verify_image 3f2a9c1d04be... '[11qYAYKxCrfV...=]'
    """
    return _call("verify_image", digest=digest, trusted=trusted)


def require_image(digest: str, trusted: list):
    """
    Return the digest of an image; fail unless it is on this host as it was signed.

    trusted
        The public keys (base64) whose signatures count.

    CLI Example:

    .. code-block:: bash

        salt-call image.require_image 3f2a9c1d04be... '[11qYAYKxCrfV...=]'
    """
    return _call("require_image", digest=digest, trusted=trusted)


def find_image(digest: str):
    """
    Return the metadata of an image, the manifest of its seal layer, and its signature.

    CLI Example:

    .. code-block:: bash

        salt-call image.find_image 3f2a9c1d04be...
    """
    return _call("find_image", digest=digest)


def has_image(digest: str, trusted: list | None = None):
    """
    Return whether an image is on this host with all of its layers, undamaged and signed.

    trusted
        The public keys (base64) whose signatures count. Without them the signature is not verified.

    CLI Example:

    .. code-block:: bash

        salt-call image.has_image 3f2a9c1d04be... '[11qYAYKxCrfV...=]'
    """
    return _call("has_image", digest=digest, trusted=trusted)


def software(digest: str):
    """
    Return the Debian packages and Python distributions of an image, with their licenses.

    CLI Example:

    .. code-block:: bash

        salt-call image.software 3f2a9c1d04be...
    """
    return _call("software", digest=digest)


def compare_images(old: str, new: str):
    """
    Return the differences between the files and the enabled units of two images.

    CLI Example:

    .. code-block:: bash

        salt-call image.compare_images 3f2a9c1d04be... 77f07e9cbf34...
    """
    return _call("compare_images", old=old, new=new)


def open_shell(
    digest: str,
    command: str | None = None,
    boot: bool = False,
    bridge: str | None = None,
    subnet: str | None = None,
):
    """
    Open a root shell in a temporary copy of an image, or run a command in it.

    command
        The command; without one, a shell on this terminal.

    boot
        Start the image's services, but never its minion.

    bridge
        The bridge for the copy, by default that of the config.

    subnet
        The subnet of that bridge.

    CLI Example:

    .. code-block:: bash

        salt-call --local image.open_shell 3f2a9c1d04be...
    """
    net = spec.settings(__opts__).network
    network = {"bridge": bridge or net.bridge, "subnet": subnet or net.subnet}
    return _call("open_shell", digest=digest, command=command, boot=boot, **network)


def open_failed(bake_id: str, command: str | None = None):
    """
    Open a root shell in the machine that a failed bake keeps, or run a command in it.

    ``image.bake web keep_failed=1h`` keeps the machine of states that fail for an hour.

    bake_id
        The id under which the recipe is baked.

    command
        The command; without one, a shell on this terminal.

    CLI Example:

    .. code-block:: bash

        salt-call --local image.open_failed web-bake.example.com
    """
    return _call("open_failed", bake_id=bake_id, command=command)


def local_images():
    """
    Return the metadata of all images on this host, by digest.

    CLI Example:

    .. code-block:: bash

        salt-call image.local_images
    """
    return _call("local_images")


def export_image(order: dict):
    """
    Write an image to a file of this host. Progress is reported to the master as events.

    order
        A mapping with digest, format, target (path), force, test and trusted (public keys).

    CLI Example:

    .. code-block:: bash

        salt-call image.export_image '{digest: 3f2a..., format: oci, target: /srv/web.oci.tar, force: false, ...}'
    """

    def progress(message, tag, **data):
        __salt__["event.send"](f"immutable/{tag}", {"message": message, **data})

    return exporting.export_image(Host(spec.settings(__opts__).root), order, progress)


def drop_image(digest: str, test: bool = False):
    """
    Remove an image and those of its layers that nothing else needs; return the digests of these layers.

    test
        Remove nothing; only fail if machines run the image.

    CLI Example:

    .. code-block:: bash

        salt-call image.drop_image 3f2a9c1d04be...
    """
    return _call("drop_image", digest=digest, test=test)


def image_users():
    """
    Return the machines and mounts that use images of this host, by digest.

    CLI Example:

    .. code-block:: bash

        salt-call image.image_users
    """
    return _call("image_users")


def collect(
    known: list,
    suites: list,
    bake_ids: list,
    test: bool = False,
    tarballs: list | tuple = (),
    references: list | tuple = (),
):
    """
    Remove what nothing needs on this host: unknown images, layers, keys, caches, leftovers of killed bakes.

    known
        Digests of the images to keep.

    suites
        Suites of the recipes; downloads for other suites are removed.

    bake_ids
        Bake ids of the recipes; downloads for others are removed.

    test
        Only report what would be removed.

    tarballs
        The sha256 of the archives of the recipes; other fetched archives are removed.

    references
        The OCI images of the recipes; others that were fetched are removed.

    CLI Example:

    .. code-block:: bash

        salt-call image.collect '[3f2a9c1d04be...]' '[bookworm]' '[web-bake.example.com]' test=True
    """
    kept = {"known": known, "suites": suites, "bake_ids": bake_ids, "tarballs": tarballs, "references": references}
    return _call("collect", **kept, test=test)


def sweep():
    """
    Remove what killed bakes left on this host; return the names of their workspaces.

    CLI Example:

    .. code-block:: bash

        salt-call image.sweep
    """
    return _call("sweep")


if MISSING is None:
    arguments.check_all(globals(), CommandExecutionError)
