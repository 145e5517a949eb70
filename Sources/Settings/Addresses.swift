import Glibc

/// `HOST:PORT`, taken apart but not judged.
struct HostAndPort {
    /// Without brackets.
    var host: String
    var isBracketed: Bool
    /// nil when there is none.
    var port: String?

    /// nil when the brackets do not close or stand in the wrong place, or an IPv6 address lacks them.
    init?(_ text: String) {
        var rest = text[...]
        if rest.first == "[" {
            guard let close = rest.firstIndex(of: "]") else { return nil }
            host = String(rest[rest.index(after: rest.startIndex)..<close])
            isBracketed = true
            rest = rest[rest.index(after: close)...]
        } else {
            let colon = rest.firstIndex(of: ":") ?? rest.endIndex
            host = String(rest[..<colon])
            isBracketed = false
            rest = rest[colon...]
        }
        if rest.isEmpty {
            port = nil
        } else {
            guard rest.first == ":", !rest.dropFirst().contains(":") else { return nil }
            port = String(rest.dropFirst())
        }
    }
}

enum Address {
    static func isIPv4(_ text: String) -> Bool {
        var address = in_addr()
        return inet_pton(AF_INET, text, &address) == 1
    }

    static func isIPv6(_ text: String) -> Bool {
        var address = in6_addr()
        return inet_pton(AF_INET6, text, &address) == 1
    }

    /// Whether `text` may be a host's name: letters, digits, hyphens and underscores between dots, at most
    /// 253 bytes. Digits and dots alone are a broken IPv4 address, not a name.
    static func isName(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard !bytes.isEmpty, bytes.count <= 253 else { return false }
        let isDigit = { (byte: UInt8) in (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
        guard !bytes.allSatisfy({ isDigit($0) || $0 == UInt8(ascii: ".") }) else { return false }
        return bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).allSatisfy {
            label in
            !label.isEmpty && label.count <= 63
                && label.allSatisfy { byte in
                    isDigit(byte) || byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_")
                        || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
                }
        }
    }

    static func port(_ text: String?, from lowest: UInt16) -> UInt16? {
        guard let text, !text.isEmpty,
            text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
            let port = UInt16(text), port >= lowest
        else { return nil }
        return port
    }

    /// The name of this machine, made fit for a gateway's name; "tidegate" when it has none.
    static func hostName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        guard gethostname(&buffer, buffer.count - 1) == 0 else { return "tidegate" }
        let bytes = buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        return gatewayName(from: String(decoding: bytes, as: UTF8.self))
    }

    /// The first label of a host name with every other character than letters, digits, `-` and `_` made `-`.
    static func gatewayName(from hostName: String) -> String {
        let label = hostName.prefix { $0 != "." }
        let name = String(label.map { GatewayName.allows($0) ? $0 : "-" }.prefix(GatewayName.lengthMax))
        return name.isEmpty ? "tidegate" : name
    }
}

/// The rules for the names of gateways and uplinks: they stand in topics and client identifiers.
enum GatewayName {
    static let lengthMax = 64

    static func allows(_ character: Character) -> Bool {
        character.isASCII
            && (character.isLetter || character.isNumber || character == "-" || character == "_")
    }

    static func isValid(_ text: String) -> Bool {
        !text.isEmpty && text.count <= lengthMax && text.allSatisfy(allows)
    }
}

extension ListenerSettings {
    /// What is wrong with an address, and what to write.
    struct Refusal: Error {
        var wrong: String
        var write: String
    }

    /// Reads `HOST:PORT` or `unix:/PATH`; the host is an IPv4 address, an IPv6 address in brackets, or
    /// `localhost`.
    ///
    /// - Parameter lowestPort: 0 where the system may choose the port.
    init(address text: String, isAnonymous: Bool, lowestPort: UInt16) throws(Refusal) {
        if text.hasPrefix("unix:") {
            self.init(try Self.unix(String(text.dropFirst(5))))
            self.isAnonymous = isAnonymous
        } else {
            self.init(try Self.tcp(text, lowestPort: lowestPort), isAnonymous: isAnonymous)
        }
        if case .tcp(_, let port) = endpoint, !isLocal, !isAnonymous {
            throw Refusal(
                wrong: "\(text) can be reached from other machines, and nothing asks clients who they are",
                write:
                    "anonymous: true beside the address if anyone may connect, tls with require-certificate, or 127.0.0.1:\(port)"
            )
        }
    }

    private static func tcp(_ text: String, lowestPort: UInt16) throws(Refusal) -> Endpoint {
        let example = "an address such as 127.0.0.1:1883, [::1]:1883 or localhost:1883"
        guard let parts = HostAndPort(text) else {
            throw Refusal(wrong: "\"\(text)\" is not HOST:PORT", write: example)
        }
        var host = parts.host
        if host == "localhost", !parts.isBracketed { host = "127.0.0.1" }
        guard parts.isBracketed ? Address.isIPv6(host) : Address.isIPv4(host) else {
            throw Refusal(wrong: "\"\(parts.host)\" is not an IP address to listen at", write: example)
        }
        guard let port = Address.port(parts.port, from: lowestPort) else {
            let shown = parts.isBracketed ? "[\(host)]" : parts.host
            throw Refusal(
                wrong: parts.port.map { "\"\($0)\" is not a port" } ?? "\"\(text)\" has no port",
                write: "\(shown):1883, or another port up to 65535")
        }
        return .tcp(host: host, port: port)
    }

    /// What `sockaddr_un` has room for, less the zero at its end.
    private static let unixPathBytesMax = 107

    private static func unix(_ path: String) throws(Refusal) -> Endpoint {
        let example = "unix:/run/tidegate/mqtt.sock"
        guard path.hasPrefix("/"), !path.hasSuffix("/"), !path.utf8.contains(0) else {
            throw Refusal(wrong: "\"\(path)\" is not the path of a file that begins with /", write: example)
        }
        guard path.utf8.count <= unixPathBytesMax else {
            throw Refusal(
                wrong: "the path of a unix socket has at most \(unixPathBytesMax) bytes, "
                    + "and this has \(path.utf8.count)", write: "a shorter one, such as \(example)")
        }
        return .unix(path: path, mode: defaultMode)
    }

    /// The listener of `--listen ADDRESS:PORT` or `--listen unix:/PATH`; port 0 lets the system choose.
    ///
    /// - Parameter isAnonymous: whether the user said that anyone may connect from beyond this machine.
    package init(commandLine text: String, isAnonymous: Bool) throws(SettingsErrors) {
        do {
            try self.init(address: text, isAnonymous: isAnonymous, lowestPort: 0)
        } catch {
            throw SettingsErrors([
                SettingsError(file: "--listen", place: nil, wrong: error.wrong, write: error.write)
            ])
        }
    }
}
