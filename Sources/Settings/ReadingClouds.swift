/// Where an uplink leads, and how it gets there.
extension UplinkSettings {
    /// Where a list of places to connect to ends: more are not a plan for an outage.
    static let addressesMax = 8

    /// `address`, or `addresses` with several; empty after an error.
    static func readAddresses(_ reader: inout MappingReader, _ problems: inout Problems) -> [AddressSettings]
    {
        let example = "mqtt://broker.example.com:1883"
        let single = reader.text("address", example: example, &problems)
        guard let items = reader.list("addresses", example: "addresses: [ \"\(example)\" ]", &problems) else {
            return single.flatMap { AddressSettings.read($0.text, at: $0.place, &problems) }.map { [$0] }
                ?? []
        }
        if let single {
            problems.add(single.place, "address and addresses are both written", write: "one of them")
            return []
        }
        guard !items.isEmpty else {
            problems.add(reader.place, "addresses names no address", write: "address: \(example)")
            return []
        }
        guard items.count <= addressesMax else {
            problems.add(
                items[addressesMax].place, "an uplink has at most \(addressesMax) addresses",
                write: "those that lead to different brokers")
            return []
        }
        var addresses: [AddressSettings] = []
        for item in items {
            guard case .scalar(let scalar) = item.content, !scalar.isNull else {
                problems.add(
                    item.place, "an address is a single value, and this is \(item.kind)", write: example)
                continue
            }
            guard let address = AddressSettings.read(scalar.text, at: item.place, &problems) else { continue }
            if addresses.contains(address) {
                problems.add(item.place, "\(scalar.text) is already in the list", write: "each address once")
            } else {
                addresses.append(address)
            }
        }
        return addresses
    }

    /// `fail-back`: only with somewhere to fail back to.
    mutating func readFailBack(_ reader: inout MappingReader, _ problems: inout Problems) {
        guard
            let (time, place) = reader.duration(
                "fail-back", 10_000...30 * 86_400_000, never: true, example: "10m", &problems)
        else { return }
        if addresses.count == 1 {
            problems.add(
                place, "with one address there is none to fail back to",
                write: "more addresses, or no fail-back")
        }
        switch time {
        case .milliseconds(let milliseconds): failBackMilliseconds = milliseconds
        case .never: failBackMilliseconds = nil
        }
    }

    /// `tls` and `proxy`.
    mutating func readWay(_ reader: inout MappingReader, _ problems: inout Problems) {
        let place = reader.peek("tls")
        if let node = reader.take("tls", &problems) {
            security = SecuritySettings.read(node, &problems)
            if !addresses.isEmpty, !addresses.contains(where: \.isSecure) {
                problems.add(
                    place, "no address of this uplink uses TLS",
                    write:
                        "mqtts://\(addresses[0].host) or wss://\(addresses[0].host) as the address, or no tls"
                )
            }
        }
        if let (text, place) = reader.text("proxy", example: "http://proxy.example.com:3128", &problems) {
            proxy = ProxySettings.read(text, at: place, &problems)
        }
    }
}

extension AddressSettings {
    fileprivate static func read(_ text: String, at place: Place, _ problems: inout Problems)
        -> AddressSettings?
    {
        let example = "mqtts://broker.example.com, or with mqtt, ws or wss"
        guard let scheme = Scheme.allCases.first(where: { text.hasPrefix("\($0.rawValue)://") }) else {
            problems.add(place, "\"\(text)\" is not an address", write: example)
            return nil
        }
        let rest = String(text.dropFirst(scheme.rawValue.count + 3))
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let (authority, path) = (String(rest[..<slash]), String(rest[slash...]))
        if authority.contains("@") {
            problems.add(
                place, "an address does not hold a user name or password", write: "them under credentials:")
            return nil
        }
        let isWebSocket = scheme == .ws || scheme == .wss
        guard isWebSocket || path.isEmpty, let parts = HostAndPort(authority), parts.isReachable else {
            problems.add(
                place, "\"\(text)\" is not \(scheme.rawValue)://HOST:PORT\(isWebSocket ? "/PATH" : "")",
                write: example)
            return nil
        }
        guard let port = Address.port(parts.port ?? "\(scheme.port)", from: 1) else {
            problems.add(place, "\"\(parts.port ?? "")\" is not a port", write: "a number from 1 to 65535")
            return nil
        }
        guard path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "#") }) else {
            problems.add(
                place, "\"\(path)\" is not the path of a URL: letters, digits and -._~/?&= are safe",
                write: "\(scheme.rawValue)://\(authority)/mqtt")
            return nil
        }
        return AddressSettings(scheme, host: parts.host, port: port, path: path.isEmpty ? "/mqtt" : path)
    }
}

extension HostAndPort {
    /// Whether the host is one to connect to: an address, or a name.
    fileprivate var isReachable: Bool {
        isBracketed ? Address.isIPv6(host) : Address.isIPv4(host) || Address.isName(host)
    }
}

extension SecuritySettings {
    fileprivate static func read(_ node: YamlNode, _ problems: inout Problems) -> SecuritySettings? {
        let example = "tls: { ca: /etc/tidegate/cloud-ca.pem }"
        guard var reader = MappingReader(node, subject: "tls", example: example, &problems) else {
            return nil
        }
        var security = SecuritySettings()
        security.authorityFile = reader.path("ca", example: "/etc/tidegate/cloud-ca.pem", &problems)
        let isHalf = (reader.peek("certificate") == nil) != (reader.peek("key") == nil)
        security.certificateFile = reader.path(
            "certificate", example: "/etc/tidegate/gateway.pem", &problems)
        security.keyFile = reader.path("key", example: "/etc/tidegate/gateway.key", &problems)
        if isHalf {
            problems.add(
                node.place, "certificate and key are of use only together",
                write: "certificate: /etc/tidegate/gateway.pem and key: /etc/tidegate/gateway.key")
        }
        if let (text, place) = reader.text("server-name", example: "broker.example.com", &problems) {
            if Address.isName(text) {
                security.serverName = text
            } else {
                problems.add(
                    place, "\"\(text)\" is not a host's name", write: "server-name: broker.example.com")
            }
        }
        security.readProtocols(&reader, &problems)
        if let (text, place) = reader.text("minimum", example: "1.2", &problems) {
            if let known = MinimumVersion(rawValue: text) {
                security.minimum = known
            } else {
                problems.add(place, "minimum is 1.2 or 1.3, not \"\(text)\"", write: "minimum: 1.2")
            }
        }
        reader.finish(&problems)
        return security
    }

    /// `alpn`: one name, or a list of them, each of 1 to 255 bytes (RFC 7301, 3.1).
    private mutating func readProtocols(_ reader: inout MappingReader, _ problems: inout Problems) {
        guard let names = reader.texts("alpn", example: "alpn: mqtt", countMax: 8, &problems) else { return }
        for (name, place) in names {
            if name.utf8.count <= 255, name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) {
                protocols.append(name)
            } else {
                problems.add(place, "\"\(name)\" is not the name of a protocol", write: "alpn: mqtt")
            }
        }
    }
}

extension ProxySettings {
    fileprivate static func read(_ text: String, at place: Place, _ problems: inout Problems)
        -> ProxySettings?
    {
        let example = "proxy: http://proxy.example.com:3128"
        guard text.hasPrefix("http://") else {
            problems.add(
                place,
                text.contains("://")
                    ? "only a proxy spoken to by http:// is understood; it carries TLS inside"
                    : "the proxy is not an address", write: example)
            return nil
        }
        var rest = text.dropFirst("http://".count)
        if rest.last == "/" { rest = rest.dropLast() }
        // The last one: a password may hold others.
        let at = rest.lastIndex(of: "@")
        let authority = String(at.map { rest[rest.index(after: $0)...] } ?? rest)
        guard let parts = HostAndPort(authority), parts.isReachable else {
            problems.add(
                place, "the proxy is not http://HOST:PORT or http://USER:PASSWORD@HOST:PORT", write: example)
            return nil
        }
        guard let port = Address.port(parts.port, from: 1) else {
            problems.add(place, "the proxy has no port", write: "proxy: http://\(authority):3128")
            return nil
        }
        var proxy = ProxySettings(host: parts.host, port: port)
        if let at {
            let user = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = decoded(user[0]), let password = decoded(user.count > 1 ? user[1] : ""),
                !name.isEmpty, !name.contains(":")
            else {
                problems.add(
                    place, "the proxy's user name or password is not readable",
                    write: "USER:PASSWORD with every special character as in a URL, a % as %25")
                return nil
            }
            (proxy.userName, proxy.password) = (name, password)
        }
        return proxy
    }

    /// With `%25` made `%` (RFC 3986, 2.1); nil where that is not UTF-8 or no text.
    private static func decoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            let digits = rest.prefix(2)
            guard digits.count == 2, let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 16)
            else {
                return nil
            }
            rest = rest.dropFirst(2)
            bytes.append(value)
        }
        guard bytes.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else { return nil }
        return String(validating: bytes, as: UTF8.self)
    }
}
