import Testing

@testable import Transport

/// The names in a certificate, as device profiles compare them: RFC 4514, out of DER.
@Suite("Names in certificates")
struct DistinguishedNameTests {
    @Test("Names are written as RFC 4514 writes them", arguments: names)
    func written(_ name: Name) {
        let der = certificate(subject: name.der, issuer: rdn([attribute(Self.commonName, "Plant CA")]))
        #expect(PeerCertificate(der: der) == PeerCertificate(subject: name.text, issuer: "CN=Plant CA"))
    }

    @Test("A certificate without a version, as it was before version 3, has names too")
    func firstVersion() {
        let name = rdn([attribute(Self.commonName, "a")])
        let der = certificate(subject: name, issuer: name, version: [])
        #expect(PeerCertificate(der: der)?.subject == "CN=a")
    }

    @Test("What is cut off has no names, and no byte changed does any harm")
    func broken() {
        let name = rdn([attribute(Self.commonName, "press-1"), attribute([0x55, 4, 11], "Sales")])
        let der = certificate(subject: name, issuer: name)
        for count in 0..<der.count { #expect(PeerCertificate(der: Array(der[..<count])) == nil) }
        var read = 0
        for i in der.indices {
            for byte in [0x00, 0x30, 0x7F, 0x80, 0x84, 0xFF] as [UInt8] {
                var changed = der
                changed[i] = byte
                if PeerCertificate(der: changed) != nil { read += 1 }
            }
        }
        #expect(read > 0 && read < der.count * 6)
    }

    struct Name: Sendable, CustomTestStringConvertible {
        var text: String
        var der: [UInt8]
        var testDescription: String { text }
    }

    private static let commonName: [UInt8] = [0x55, 4, 3]

    /// RFC 4514, 4, and what a device could try.
    static let names: [Name] = [
        Name(text: "", der: []),
        Name(
            text: "CN=press-12,O=Plant 7,C=DE",
            der: rdn([attribute([0x55, 4, 6], "DE", 0x13)]) + rdn([attribute([0x55, 4, 10], "Plant 7")])
                + rdn([attribute(commonName, "press-12")])),
        Name(
            text: "OU=Sales+CN=J.  Smith",
            der: rdn([attribute([0x55, 4, 11], "Sales"), attribute(commonName, "J.  Smith")])),
        Name(
            text: #"CN=James \"Jim\" Smith\, III"#,
            der: rdn([attribute(commonName, #"James "Jim" Smith, III"#)])),
        Name(text: #"CN=a\,O=Plant 7"#, der: rdn([attribute(commonName, "a,O=Plant 7")])),
        Name(text: ##"CN=\#a# \ "##, der: rdn([attribute(commonName, "#a#  ")])),
        Name(text: #"CN=\ a\+b\;\<\>\\"#, der: rdn([attribute(commonName, #" a+b;<>\"#)])),
        Name(text: #"CN=a\00b"#, der: rdn([attribute(commonName, "a\0b")])),
        Name(text: "CN=Lučić", der: rdn([attribute(commonName, "Lučić")])),
        // Bytes that are no text, and text of a kind that is not read.
        Name(
            text: "CN=#0c01ff",
            der: rdn([element(0x30, element(0x06, commonName) + element(0x0C, [0xFF]))])),
        Name(
            text: "CN=#1401e9", der: rdn([element(0x30, element(0x06, commonName) + element(0x14, [0xE9]))])),
        // A BMPString.
        Name(
            text: "CN=Zé",
            der: rdn([element(0x30, element(0x06, commonName) + element(0x1E, [0, 0x5A, 0, 0xE9]))])),
        Name(
            text: "1.3.6.1.4.1.1466.0=#04024869",
            der: rdn([
                element(
                    0x30, element(0x06, [0x2B, 6, 1, 4, 1, 0x8B, 0x3A, 0]) + element(0x04, [0x48, 0x69]))
            ])),
    ]
}

/// One element of DER.
private func element(_ tag: UInt8, _ content: [UInt8]) -> [UInt8] {
    let count = content.count
    let length: [UInt8] =
        count < 128 ? [UInt8(count)] : [0x82, UInt8(count >> 8), UInt8(truncatingIfNeeded: count)]
    return [tag] + length + content
}

private func attribute(_ type: [UInt8], _ value: String, _ tag: UInt8 = 0x0C) -> [UInt8] {
    element(0x30, element(0x06, type) + element(tag, Array(value.utf8)))
}

private func rdn(_ attributes: [[UInt8]]) -> [UInt8] { element(0x31, attributes.flatMap(\.self)) }

/// As much of a certificate as comes before its key.
private func certificate(
    subject: [UInt8], issuer: [UInt8], version: [UInt8] = element(0xA0, [2, 1, 2])
) -> [UInt8] {
    let algorithm = element(0x30, element(0x06, [0x2A, 3]))
    let validity = element(0x30, [])
    let body =
        version + element(0x02, [1]) + algorithm + element(0x30, issuer) + validity + element(0x30, subject)
    return element(0x30, element(0x30, body))
}
