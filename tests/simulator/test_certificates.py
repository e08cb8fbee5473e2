"""Tests of the certificates."""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from chat2api.simulator.certificates import make_certificates


def test_the_ca_signs_itself_and_each_start_makes_another() -> None:
    one, other = (x509.load_pem_x509_certificate(make_certificates().ca_pem) for _ in range(2))
    assert isinstance(one.public_key(), ec.EllipticCurvePublicKey)
    one.verify_directly_issued_by(one)
    assert one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is True
    assert one.public_key() != other.public_key()
