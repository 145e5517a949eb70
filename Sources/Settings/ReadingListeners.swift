/// One item of `listeners`.
extension ListenerSettings {
    /// - Parameter bounds: where what it asks of the limits is noted.
    static func read(_ node: YamlNode, _ bounds: inout [ListenerBounds], _ problems: inout Problems)
        -> (ListenerSettings, Place)?
    {
        guard
            var reader = MappingReader(
                node, subject: "a listener", example: "- address: 127.0.0.1:1883", &problems)
        else { return nil }
        if reader.peek("address") == nil {
            problems.add(reader.place, "a listener needs an address", write: "address: 127.0.0.1:1883")
        }
        let address = reader.text("address", example: "127.0.0.1:1883", &problems)
        let speech = reader.speech(&problems)
        let mode = reader.mode(isUnix: address?.text.hasPrefix("unix:") ?? true, &problems)
        var bound = ListenerBounds(
            connectionsPlace: reader.peek("max-connections"), packetPlace: reader.peek("packet-size"))
        bound.connections = reader.count("max-connections", 1...1_000_000, example: 100, &problems)
        bound.packetBytes = reader.size("packet-size", 1024...256 << 20, example: "64 KiB", &problems)
        bounds.append(bound)
        let anonymous = reader.flag("anonymous", &problems) ?? false
        let loopback = "a loopback address such as 127.0.0.1:1883, or anonymous: true"
        let isRefused = reader.refuseAsLater("users", instead: loopback, &problems)
        let security = reader.security(&problems)
        reader.finish(&problems)
        guard let (text, place) = address else { return nil }
        do {
            // Who wrote `users` meant to let nobody in unasked: one error about that is enough.
            var listener = try ListenerSettings(
                address: text,
                isAnonymous: anonymous || isRefused || security?.requiresCertificate == true, lowestPort: 1)
            listener.isAnonymous = anonymous || isRefused
            if security != nil, case .unix = listener.endpoint {
                problems.add(
                    place, "a unix socket needs no TLS: nobody listens in", write: "no tls, or a port")
            }
            listener.security = security
            listener.speech = speech
            listener.connections = bound.connections
            listener.packetBytes = bound.packetBytes
            if let mode, case .unix(let path, _) = listener.endpoint {
                listener.endpoint = .unix(path: path, mode: mode)
            }
            return (listener, place)
        } catch {
            problems.add(place, error.wrong, write: error.write)
            return nil
        }
    }
}

extension MappingReader {
    /// `protocol` and `path`.
    fileprivate mutating func speech(_ problems: inout Problems) -> ListenerSettings.Speech {
        let spoken = text("protocol", example: "websocket", &problems)
        let pathPlace = peek("path")
        let path = path("path", example: "/mqtt", &problems)
        switch spoken?.text {
        case "websocket":
            guard let path else { return .webSocket(paths: ListenerSettings.defaultPaths) }
            if path.utf8.contains(where: {
                $0 <= 0x20 || $0 >= 0x7F || $0 == UInt8(ascii: "?") || $0 == UInt8(ascii: "#")
            }) {
                problems.add(
                    pathPlace, "\"\(path)\" is not the path of a URL: letters, digits and -._~/ are safe",
                    write: "path: /mqtt")
            }
            return .webSocket(paths: [path])
        case nil, "mqtt":
            if path != nil {
                problems.add(
                    pathPlace, "only a WebSocket listener has a path",
                    write: "protocol: websocket beside it, or no path")
            }
        case .some(let other):
            problems.add(
                spoken?.place, "protocol is mqtt or websocket, not \"\(other)\"", write: "protocol: websocket"
            )
        }
        return .mqtt
    }

    /// `tls`.
    fileprivate mutating func security(_ problems: inout Problems) -> ListenerSecuritySettings? {
        guard let node = take("tls", &problems),
            let read = ReadMapping(node, "tls", Self.securityKeys, &problems)
        else { return nil }
        var paths: [String: String] = [:]
        for key in ["certificate", "key", "client-ca"] {
            guard let path = read.text(key) else { continue }
            paths[key] = path
            if !path.hasPrefix("/") || path.utf8.contains(0) {
                problems.add(
                    read.place(of: key), "\(key) is a path that begins with /, not \"\(path)\"",
                    write: "\(key): /etc/tidegate/\(key).pem")
            }
        }
        guard let certificate = paths["certificate"], let key = paths["key"] else { return nil }
        var security = ListenerSecuritySettings(certificateFile: certificate, keyFile: key)
        security.clientAuthorityFile = paths["client-ca"]
        security.requiresCertificate = read.text("require-certificate") == "true"
        security.requiresTLS13 = read.text("minimum") == "1.3"
        if security.requiresCertificate, security.clientAuthorityFile == nil {
            problems.add(
                read.place(of: "require-certificate"), "nothing says whose certificates are believed",
                write: "client-ca: /etc/tidegate/devices.pem beside it")
        }
        return security
    }

    private static let securityKeys = [
        KeyDescription(
            "certificate", .text(), example: "/etc/tidegate/gateway.pem", isRequired: true,
            "The gateway's certificate, with those that lead to an authority behind it."),
        KeyDescription("key", .text(), example: "/etc/tidegate/gateway.key", isRequired: true, "Its key."),
        KeyDescription(
            "client-ca", .text(), example: "/etc/tidegate/devices.pem",
            "The authorities whose certificates clients may show."),
        KeyDescription(
            "require-certificate", .word(["true", "false"]), example: "true",
            "Whether a client without a certificate is turned away."),
        KeyDescription("minimum", .word(["1.2", "1.3"]), example: "1.2", "The oldest version of TLS."),
    ]

    /// `mode`: the permissions of a Unix socket's file, in octal as chmod takes them.
    fileprivate mutating func mode(isUnix: Bool, _ problems: inout Problems) -> UInt32? {
        guard let (text, place) = text("mode", example: "0660", &problems) else { return nil }
        guard isUnix else {
            problems.add(
                place, "only a unix socket has a mode",
                write: "address: unix:/run/tidegate/mqtt.sock, or no mode")
            return nil
        }
        guard (3...4).contains(text.utf8.count), let mode = UInt32(text, radix: 8), mode <= 0o777 else {
            problems.add(
                place, "mode is the permissions of a file in octal, such as 0660, not \"\(text)\"",
                write: "mode: 0660")
            return nil
        }
        return mode
    }
}

/// What a listener asks of the limits, and where it says so.
struct ListenerBounds {
    var connectionsPlace: Place?
    var packetPlace: Place?
    var connections: Int?
    var packetBytes: Int?

    /// A listener can narrow the limits, not widen them.
    func check(against limits: LimitSettings, _ problems: inout Problems) {
        if let connections, connections > limits.connections {
            problems.add(
                connectionsPlace,
                "max-connections of \(connections) is more than limits allows for all listeners together",
                write: "max-connections: \(limits.connections) or less, or more connections under limits")
        }
        if let packetBytes, packetBytes > limits.packetBytes {
            let (asked, allowed) = (
                ByteSize.text(UInt64(packetBytes)), ByteSize.text(UInt64(limits.packetBytes))
            )
            problems.add(
                packetPlace, "packet-size of \(asked) is more than limits allows",
                write: "packet-size: \(allowed) or less, or a larger packet-size under limits")
        }
    }
}
