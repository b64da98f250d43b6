"""
Bake on this host: layers and images.

What ``salt-run image.bake`` calls; as root, on the host that the master config names as ``immutable:builder``.
People use the runner of the same name.
"""

try:
    from saltext.immutable import spec
    from saltext.immutable.builder.export import write as exporting
    from saltext.immutable.builder.local import LOCAL
    from saltext.immutable.host import Host

    MISSING = None
except ImportError as err:
    MISSING = f"a builder needs: pip install 'saltext-immutable[master]' ({err})"

__virtualname__ = "image"


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


def _call(name, **kwargs):
    host = Host(spec.settings(__opts__).root)
    with host.explain_full_disk():
        return LOCAL[name](host, **kwargs)


def sources(suite, components, mirror=None):
    """
    Return the sources.list lines that a bake of a suite uses here.

    CLI Example:

    .. code-block:: bash

        salt-call image.sources bookworm '[main]'
    """
    return _call("sources", suite=suite, components=components, mirror=mirror)


def find_layer(key):
    """
    Return the layer that a key led to last, or None.

    CLI Example:

    .. code-block:: bash

        salt-call image.find_layer 5f1d...
    """
    return _call("find_layer", key=key)


def keep_layer(key, digest, warnings=(), about=None):
    """
    Let a key lead to a layer from now on, with what is to be said of it, and of the stack up to it.

    CLI Example:

    .. code-block:: bash

        salt-call image.keep_layer 5f1d... 3f2a9c1d04be...
    """
    return _call("keep_layer", key=key, digest=digest, warnings=warnings, about=about)


def make_key(bake_id):
    """
    Make the key pair of a bake; the public half is returned, the other one never leaves this host.

    CLI Example:

    .. code-block:: bash

        salt-call image.make_key web-bake.example.com
    """
    return _call("make_key", bake_id=bake_id)


def debian_layer(order):
    """
    Make the root layer of a Debian or Ubuntu image by mmdebstrap.

    CLI Example:

    .. code-block:: bash

        salt-call image.debian_layer '{what: debian bookworm, suite: bookworm, ...}'
    """
    return _call("debian_layer", order=order)


def root_content(order):
    """
    Return the hash of a root that somebody else made, as it is now: a tar archive, or a directory, of this host.

    CLI Example:

    .. code-block:: bash

        salt-call image.root_content '{tarball: /srv/root.tar.zst}'
    """
    return _call("root_content", order=order)


def root_layer(order):
    """
    Make the lowest layer of an image of a root that somebody else made.

    CLI Example:

    .. code-block:: bash

        salt-call image.root_layer '{what: tarball /srv/root.tar.zst, tarball: /srv/root.tar.zst, sha256: 3f2a...}'
    """
    return _call("root_layer", order=order)


def minion_layer(order):
    """
    Add Salt and this pack to a stack of layers.

    CLI Example:

    .. code-block:: bash

        salt-call image.minion_layer '{below: [3f2a...], requirement: salt==3008.3, ...}'
    """
    return _call("minion_layer", order=order)


def state_layer(order):
    """
    Apply states in a temporary machine, and keep the difference as a layer.

    CLI Example:

    .. code-block:: bash

        salt-call image.state_layer '{below: [3f2a...], bake_id: web-bake, states: highstate, ...}'
    """
    return _call("state_layer", order=order)


def candidates(order):
    """
    Return today's version at the mirrors of each package of a stack of layers.

    CLI Example:

    .. code-block:: bash

        salt-call image.candidates '{below: [3f2a...], bridge: immutable0, subnet: 10.117.0.0/24}'
    """
    return _call("candidates", order=order)


def updates(order):
    """
    Return the packages of a stack of layers that have updates at the mirrors: installed, candidate, security.

    CLI Example:

    .. code-block:: bash

        salt-call image.updates '{below: [3f2a...], bridge: immutable0, subnet: 10.117.0.0/24}'
    """
    return _call("updates", order=order)


def make_image(order):
    """
    Make an image of finished layers, with its seal.

    CLI Example:

    .. code-block:: bash

        salt-call image.make_image '{recipe: web, layers: [3f2a...], read_only: true, grains: {}, policy: {}, ...}'
    """
    return _call("make_image", order=order)


def keep_proof(digest, proof):
    """
    Put beside an image what vouches for it: its signature, and where it comes from.

    CLI Example:

    .. code-block:: bash

        salt-call image.keep_proof 3f2a9c1d04be... '{signature: {...}, provenance: {...}}'
    """
    return _call("keep_proof", digest=digest, proof=proof)


def test_image(order):
    """
    Run the booted tests of an image on a machine of it, and return what came of each.

    CLI Example:

    .. code-block:: bash

        salt-call image.test_image '{image: 3f2a9c1d04be..., bake_id: web-bake, tests: {...}, ...}'
    """
    return _call("test_image", order=order)


def verify_image(digest, trusted):
    """
    Read all of an image; fail unless it is as it was signed.

    trusted
        The public keys (base64) whose signatures count.

    CLI Example:

    .. code-block:: bash

        salt-call image.verify_image 3f2a9c1d04be... '[11qYAYKxCrfV...=]'
    """
    return _call("verify_image", digest=digest, trusted=trusted)


def require_image(digest, trusted):
    """
    Return the digest of an image that is on this host as it was signed, or fail.

    trusted
        The public keys (base64) whose signatures count.

    CLI Example:

    .. code-block:: bash

        salt-call image.require_image 3f2a9c1d04be... '[11qYAYKxCrfV...=]'
    """
    return _call("require_image", digest=digest, trusted=trusted)


def find_image(digest):
    """
    Return what an image is made of, what of it is signed, and its signature.

    CLI Example:

    .. code-block:: bash

        salt-call image.find_image 3f2a9c1d04be...
    """
    return _call("find_image", digest=digest)


def has_image(digest):
    """
    Tell whether an image is on this host, with all of its layers and what vouches for it.

    CLI Example:

    .. code-block:: bash

        salt-call image.has_image 3f2a9c1d04be...
    """
    return _call("has_image", digest=digest)


def software(digest):
    """
    Return the Debian packages and Python distributions of an image, with their licenses.

    CLI Example:

    .. code-block:: bash

        salt-call image.software 3f2a9c1d04be...
    """
    return _call("software", digest=digest)


def compare_images(old, new):
    """
    Return how the files and the enabled units of two images differ.

    CLI Example:

    .. code-block:: bash

        salt-call image.compare_images 3f2a9c1d04be... 77f07e9cbf34...
    """
    return _call("compare_images", old=old, new=new)


def open_shell(digest, command=None, boot=False, bridge=None, subnet=None):
    """
    Open a shell of root in a throw-away copy of an image of this host, or run a command in one.

    boot
        Let its services run; the minion never does.

    CLI Example:

    .. code-block:: bash

        salt-call --local image.open_shell 3f2a9c1d04be...
    """
    net = spec.settings(__opts__).network
    place = {"bridge": bridge or net.bridge, "subnet": subnet or net.subnet}
    return _call("open_shell", digest=digest, command=command, boot=boot, **place)


def local_images():
    """
    Return the images whose layers are on this host, by digest.

    CLI Example:

    .. code-block:: bash

        salt-call image.local_images
    """
    return _call("local_images")


def export_image(order):
    """
    Write an image to a file of this host; progress goes to the master as events.

    CLI Example:

    .. code-block:: bash

        salt-call image.export_image '{digest: 3f2a..., format: oci, target: /srv/web.oci.tar, force: false, ...}'
    """

    def tell(message, tag, **data):
        __salt__["event.send"](f"immutable/{tag}", {"message": message, **data})

    return exporting.export_image(Host(spec.settings(__opts__).root), order, tell)


def drop_image(digest, test=False):
    """
    Remove an image, and those of its layers that nothing else needs; return the layers' digests.

    test
        Only fail if machines run it.

    CLI Example:

    .. code-block:: bash

        salt-call image.drop_image 3f2a9c1d04be...
    """
    return _call("drop_image", digest=digest, test=test)


def image_users():
    """
    Return who uses images on this host, by digest.

    CLI Example:

    .. code-block:: bash

        salt-call image.image_users
    """
    return _call("image_users")


def collect(known, suites, bake_ids, test=False, tarballs=()):
    """
    Remove what nothing needs on this host: images in no book, layers, keys, caches, what killed bakes left.

    known
        Digests of the images to keep.

    suites
        Suites that recipes have; downloads for others go.

    bake_ids
        Bake ids that recipes have; downloads for others go.

    test
        Only tell what would be removed.

    tarballs
        Sums (sha256) of the archives that recipes have; others that were fetched go.

    CLI Example:

    .. code-block:: bash

        salt-call image.collect '[3f2a9c1d04be...]' '[bookworm]' '[web-bake.example.com]' test=True
    """
    return _call("collect", known=known, suites=suites, bake_ids=bake_ids, test=test, tarballs=tarballs)


def sweep():
    """
    Remove what killed bakes left on this host; return the names of their workspaces.

    CLI Example:

    .. code-block:: bash

        salt-call image.sweep
    """
    return _call("sweep")
