"""What can be said of a ref before anybody is asked: how it appears, and what people call it."""

from cafs.model.ref import BlobRef, DigestRef, Ref
from cafs.model.resolved import Shape
from cafs.model.spec import RefSpec


def shape_of(ref: Ref) -> Shape:
    """How a ref appears in the mount, from the ref alone."""
    return Shape.FILE if isinstance(ref, BlobRef | DigestRef) else Shape.TREE


def title(spec: RefSpec) -> str:
    """What people call the ref: its name in the settings, else its short form without secrets."""
    return spec.name or spec.ref.shown
