/// The names in an X.509 certificate (RFC 5280, 4.1), out of its DER (X.690, 8 and 10), as RFC 4514 writes them.
extension PeerCertificate {
    /// nil where the bytes are no certificate.
    ///
    /// - Complexity: O(bytes of the names)
    package init?(der bytes: [UInt8]) {
        var file = DERReader(bytes[...])
        guard var certificate = file.constructed(.sequence), var body = certificate.constructed(.sequence)
        else { return nil }
        // Version and serial number, then the algorithm of the signature.
        body.skip(.version)
        guard body.next(.integer) != nil, body.next(.sequence) != nil,
            let issuer = body.constructed(.sequence), body.next(.sequence) != nil,
            let subject = body.constructed(.sequence),
            let issuerText = DistinguishedName.text(issuer),
            let subjectText = DistinguishedName.text(subject)
        else { return nil }
        self.init(subject: subjectText, issuer: issuerText)
    }
}

private enum DistinguishedName {
    /// nil where it is no Name.
    static func text(_ name: DERReader) -> String? {
        var name = name
        var parts: [String] = []
        while !name.isAtEnd {
            guard var set = name.constructed(.set) else { return nil }
            var attributes: [String] = []
            while !set.isAtEnd {
                guard var attribute = set.constructed(.sequence),
                    let type = attribute.next(.objectIdentifier),
                    let value = attribute.next()
                else { return nil }
                attributes.append(text(type: type, value))
            }
            parts.append(attributes.joined(separator: "+"))
        }
        // RFC 4514, 2.1: the last comes first.
        return parts.reversed().joined(separator: ",")
    }

    private static func text(type: ArraySlice<UInt8>, _ value: (tag: DERTag, content: ArraySlice<UInt8>))
        -> String
    {
        // RFC 4514, 2.4: what has no name of its own, or no text, is written as bytes.
        guard let name = names.first(where: { type.elementsEqual($0.identifier) })?.name else {
            return "\(dotted(type))=#\(hex(value))"
        }
        return "\(name)=" + (string(value).map { escaped($0) } ?? "#\(hex(value))")
    }

    /// RFC 4514, 3, and RFC 2985's e-mail address as OpenSSL has it.
    private static let names: [(identifier: [UInt8], name: String)] = [
        ([0x55, 4, 3], "CN"), ([0x55, 4, 7], "L"), ([0x55, 4, 8], "ST"), ([0x55, 4, 10], "O"),
        ([0x55, 4, 11], "OU"), ([0x55, 4, 6], "C"), ([0x55, 4, 9], "STREET"), ([0x55, 4, 5], "serialNumber"),
        ([0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1, 25], "DC"),
        ([0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1, 1], "UID"),
        ([0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 1], "emailAddress"),
    ]

    private static func string(_ value: (tag: DERTag, content: ArraySlice<UInt8>)) -> String? {
        switch value.tag {
        case .utf8String, .printableString, .ia5String: String(validating: value.content, as: UTF8.self)
        case .bmpString:
            value.content.count % 2 == 0
                ? String(
                    validating: stride(from: value.content.startIndex, to: value.content.endIndex, by: 2).map
                    {
                        UInt16(value.content[$0]) << 8 | UInt16(value.content[$0 + 1])
                    }, as: UTF16.self) : nil
        default: nil
        }
    }

    /// RFC 4514, 2.4.
    private static func escaped(_ text: String) -> String {
        var escaped = ""
        let scalars = Array(text.unicodeScalars)
        for (i, scalar) in scalars.enumerated() {
            switch scalar {
            case "\"", "+", ",", ";", "<", ">", "\\": escaped += "\\"
            case "#" where i == 0: escaped += "\\"
            case " " where i == 0 || i == scalars.count - 1: escaped += "\\"
            case "\0":
                escaped += "\\00"
                continue
            default: break
            }
            escaped.unicodeScalars.append(scalar)
        }
        return escaped
    }

    private static func dotted(_ identifier: ArraySlice<UInt8>) -> String {
        var arcs: [UInt64] = []
        var arc: UInt64 = 0
        for byte in identifier {
            arc = arc << 7 | UInt64(byte & 0x7F)
            guard byte & 0x80 == 0 else { continue }
            if arcs.isEmpty {
                let first = min(arc / 40, 2)
                arcs = [first, arc - 40 * first]
            } else {
                arcs.append(arc)
            }
            arc = 0
        }
        return arcs.map(String.init).joined(separator: ".")
    }

    private static func hex(_ value: (tag: DERTag, content: ArraySlice<UInt8>)) -> String {
        let count = value.content.count
        let length =
            count < 128
            ? [UInt8(count)]
            : [0x82, UInt8(truncatingIfNeeded: count >> 8), UInt8(truncatingIfNeeded: count)]
        return ([value.tag.rawValue] + length + value.content).map { byte in
            let digits = String(byte, radix: 16)
            return digits.utf8.count < 2 ? "0" + digits : digits
        }.joined()
    }
}

private struct DERTag: RawRepresentable, Equatable {
    let rawValue: UInt8

    static let integer = DERTag(rawValue: 0x02)
    static let objectIdentifier = DERTag(rawValue: 0x06)
    static let utf8String = DERTag(rawValue: 0x0C)
    static let printableString = DERTag(rawValue: 0x13)
    static let ia5String = DERTag(rawValue: 0x16)
    static let bmpString = DERTag(rawValue: 0x1E)
    static let sequence = DERTag(rawValue: 0x30)
    static let set = DERTag(rawValue: 0x31)
    static let version = DERTag(rawValue: 0xA0)
}

/// Takes one element after the other.
private struct DERReader {
    private var rest: ArraySlice<UInt8>

    init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

    var isAtEnd: Bool { rest.isEmpty }

    /// nil at the end, and where the rest is no whole element.
    mutating func next() -> (tag: DERTag, content: ArraySlice<UInt8>)? {
        var bytes = rest
        guard let tag = bytes.popFirst(), var length = bytes.popFirst().map(Int.init) else { return nil }
        if length >= 0x80 {
            let count = length & 0x7F
            // Longer than any certificate.
            guard (1...4).contains(count), bytes.count >= count else { return nil }
            length = bytes.prefix(count).reduce(0) { $0 << 8 | Int($1) }
            bytes = bytes.dropFirst(count)
        }
        guard bytes.count >= length else { return nil }
        rest = bytes.dropFirst(length)
        return (DERTag(rawValue: tag), bytes.prefix(length))
    }

    /// The content of the next element; nil where it is another.
    mutating func next(_ tag: DERTag) -> ArraySlice<UInt8>? {
        guard let element = next(), element.tag == tag else { return nil }
        return element.content
    }

    mutating func constructed(_ tag: DERTag) -> DERReader? { next(tag).map { DERReader($0) } }

    /// Passes over the next element if it is one of these.
    mutating func skip(_ tag: DERTag) {
        if rest.first == tag.rawValue { _ = next() }
    }
}
