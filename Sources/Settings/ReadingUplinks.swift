import GatewayCore
import MQTT

/// The section `uplinks`.
extension UplinkSettings {
    static func read(_ node: YamlNode, gateway: String, _ problems: inout Problems) -> (
        UplinkSettings, Place
    )? {
        guard var reader = MappingReader(node, subject: "an uplink", example: "- name: cloud", &problems)
        else {
            return nil
        }
        let before = problems.found.count
        reportMissing(reader, &problems)
        let name = reader.text("name", example: "cloud", &problems)
        let isNameValid = name.map { GatewayName.isValid($0.text) } ?? true
        if let name, !isNameValid {
            problems.add(
                name.place, Settings.badName("name", name.text),
                write: "name: \(Address.gatewayName(from: name.text))")
        }
        let address = readAddress(&reader, &problems)
        var uplink = UplinkSettings(
            name: name?.text ?? "", host: address?.host ?? "", port: address?.port ?? 0,
            clientIdentifier: "\(gateway)-\(name?.text ?? "")")
        uplink.readConnection(&reader, &problems)
        uplink.readSessionExpiry(&reader, &problems)
        if let node = reader.take("reconnect", &problems) { uplink.readReconnect(node, &problems) }
        let routes = reader.list(
            "routes", example: "- { out: \"sensors/#\" }", emptiness: "the uplink carries nothing", &problems)
        for route in routes ?? [] { uplink.readRoute(route, gateway: gateway, &problems) }
        reader.finish(&problems)

        guard problems.found.count == before, let name else { return nil }
        return (uplink, name.place)
    }

    private static func reportMissing(_ reader: MappingReader, _ problems: inout Problems) {
        if reader.peek("name") == nil {
            problems.add(reader.place, "an uplink needs a name", write: "name: cloud")
        }
        if reader.peek("address") == nil, reader.peek("addresses") == nil {
            problems.add(
                reader.place, "an uplink needs an address", write: "address: mqtt://broker.example.com:1883")
        }
        if reader.peek("routes") == nil {
            problems.add(
                reader.place, "an uplink without routes carries nothing",
                write: "routes: [ { out: \"sensors/#\" } ]")
        }
    }

    // MARK: Where to

    /// `address`, or `addresses` with one entry until there is failover.
    private static func readAddress(
        _ reader: inout MappingReader, _ problems: inout Problems
    ) -> (host: String, port: UInt16)? {
        let example = "mqtt://broker.example.com:1883"
        let single = reader.text("address", example: example, &problems)
        guard let items = reader.list("addresses", example: "addresses: [ \"\(example)\" ]", &problems) else {
            return single.flatMap { parse(address: $0.text, at: $0.place, &problems) }
        }
        if let single {
            problems.add(single.place, "address and addresses are both written", write: "one of them")
            return nil
        }
        guard let first = items.first, case .scalar(let scalar) = first.content else {
            problems.add(
                items.first?.place ?? reader.place, "addresses names no address", write: "address: \(example)"
            )
            return nil
        }
        guard items.count == 1 else {
            problems.add(
                items[1].place, "more than one address is not offered by this version, a later one will",
                write: "the first address only")
            return nil
        }
        return parse(address: scalar.text, at: first.place, &problems)
    }

    private static func parse(
        address text: String, at place: Place, _ problems: inout Problems
    ) -> (host: String, port: UInt16)? {
        let example = "address: mqtt://broker.example.com:1883"
        let later = ["mqtts://", "ws://", "wss://"].first { text.hasPrefix($0) }
        if let later {
            problems.add(
                place, "\(later) is not offered by this version, a later one will",
                write: "mqtt://, over a network that you trust")
            return nil
        }
        guard text.hasPrefix("mqtt://") else {
            problems.add(place, "\"\(text)\" is not an address", write: example)
            return nil
        }
        let rest = String(text.dropFirst("mqtt://".count))
        if rest.contains("@") {
            problems.add(
                place, "an address does not hold a user name or password", write: "them under credentials:")
            return nil
        }
        guard !rest.contains("/"), let parts = HostAndPort(rest),
            parts.isBracketed
                ? Address.isIPv6(parts.host) : Address.isIPv4(parts.host) || Address.isName(parts.host)
        else {
            problems.add(place, "\"\(text)\" is not mqtt://HOST:PORT", write: example)
            return nil
        }
        guard let port = Address.port(parts.port ?? "1883", from: 1) else {
            problems.add(place, "\"\(parts.port ?? "")\" is not a port", write: "a number from 1 to 65535")
            return nil
        }
        return (parts.host, port)
    }

    // MARK: How

    private mutating func readConnection(_ reader: inout MappingReader, _ problems: inout Problems) {
        if let (text, place) = reader.text("client-id", example: clientIdentifier, &problems) {
            if text.utf8.count <= 256, UTF8Rules.areValid(Array(text.utf8)) {
                clientIdentifier = text
            } else {
                problems.add(
                    place, "client-id is longer than 256 bytes or holds a NUL",
                    write: "client-id: \(clientIdentifier)")
            }
        }
        if let (text, place) = reader.text("version", example: "5", &problems) {
            switch text {
            case "5", "5.0": version = .v5_0
            case "3.1.1": version = .v3_1_1
            default: problems.add(place, "version is 5 or 3.1.1, not \"\(text)\"", write: "version: 5")
            }
        }
        if let node = reader.take("credentials", &problems) {
            credentials = CredentialSettings.read(node, &problems)
        }
        // The field has 16 bits [MQTT5-3.1.2.10], some 18 hours; without a Keep Alive a dead link would go unnoticed.
        if let seconds = reader.seconds("keep-alive", 5...64_800, example: "60s", &problems) {
            keepAliveSeconds = UInt16(seconds)
        }
        if let count = reader.count("receive-maximum", 1...10_000, example: 100, &problems) {
            receiveMaximum = UInt16(count)
        }
    }

    private mutating func readSessionExpiry(_ reader: inout MappingReader, _ problems: inout Problems) {
        let range: ClosedRange<UInt64> = 0...UInt64(UInt32.max) - 1
        guard let place = reader.peek("session-expiry"),
            let seconds = reader.seconds("session-expiry", range, never: true, example: "7d", &problems)
        else { return }
        if version < .v5_0 {
            problems.add(
                place, "session-expiry cannot be asked for with version 3.1.1, where the cloud alone decides",
                write: "version: 5, or leave session-expiry out")
        } else if seconds == 0 {
            problems.add(
                place,
                "with a session-expiry of 0 the cloud would forget this gateway at every break of the link, and lose "
                    + "what it still had to deliver",
                write: "session-expiry: 7d")
        } else {
            sessionExpirySeconds = seconds
        }
    }

    private mutating func readReconnect(_ node: YamlNode, _ problems: inout Problems) {
        guard
            var reader = MappingReader(
                node, subject: "reconnect", example: "reconnect: { min: 1s, max: 60s }", &problems)
        else { return }
        let range: ClosedRange<UInt64> = 100...86_400_000
        if case (.milliseconds(let time), _)? = reader.duration("min", range, example: "1s", &problems) {
            reconnectMinMilliseconds = time
        }
        if case (.milliseconds(let time), _)? = reader.duration("max", range, example: "60s", &problems) {
            reconnectMaxMilliseconds = time
        }
        reader.finish(&problems)
        if reconnectMinMilliseconds > reconnectMaxMilliseconds {
            let min = Duration.milliseconds(reconnectMinMilliseconds).text
            problems.add(
                node.place,
                "reconnect's min of \(min) is longer than its max of "
                    + Duration.milliseconds(reconnectMaxMilliseconds).text,
                write: "max: \(min) or longer")
        }
    }

    // MARK: What

    private mutating func readRoute(_ node: YamlNode, gateway: String, _ problems: inout Problems) {
        let example = "{ out: \"sensors/#\", to: \"site/${gateway}/sensors/#\" }"
        guard var reader = MappingReader(node, subject: "a route", example: "- \(example)", &problems) else {
            return
        }
        let before = problems.found.count
        let out = reader.text("out", example: "\"sensors/#\"", &problems)
        let into = reader.text("in", example: "\"site/${gateway}/commands/#\"", &problems)
        let to = reader.text("to", example: "\"site/${gateway}/sensors/#\"", &problems)
        let qos = reader.count("qos", 0...2, example: 1, &problems)
        reader.finish(&problems)
        guard problems.found.count == before else { return }
        guard let source = out ?? into, out == nil || into == nil else {
            problems.add(node.place, "a route has either out or in", write: "- \(example)")
            return
        }
        guard let from = Self.fill(source, gateway: gateway, &problems) else { return }
        var target: String?
        if let to {
            guard let filled = Self.fill(to, gateway: gateway, &problems) else { return }
            target = filled
        }
        do {
            let template = try RouteTemplate(from: from, to: target)
            let direction: RouteSettings.Direction = out == nil ? .in : .out
            guard !routes.contains(where: { $0.direction == direction && $0.filter == template.filter })
            else {
                problems.add(
                    source.place, "another route carries \"\(source.text)\" already",
                    write: "each filter once")
                return
            }
            routes.append(
                RouteSettings(
                    direction: direction, filter: template.filter, rename: template.rename,
                    qos: qos.flatMap { QoS(rawValue: UInt8($0)) } ?? .exactlyOnce))
        } catch {
            let place = error.isAboutTarget ? to?.place ?? source.place : source.place
            problems.add(place, error.wrong, write: error.write)
        }
    }

    private static func fill(
        _ template: (text: String, place: Place), gateway: String, _ problems: inout Problems
    ) -> String? {
        do {
            return try Variables.fill(template.text, gateway: gateway)
        } catch {
            problems.add(
                template.place, "\"\(error.written)\" is not a variable known here", write: "${gateway}")
            return nil
        }
    }
}

extension CredentialSettings {
    fileprivate static func read(_ node: YamlNode, _ problems: inout Problems) -> CredentialSettings? {
        let example = "credentials: { username: plant-7, password-file: /etc/tidegate/cloud.password }"
        guard var reader = MappingReader(node, subject: "credentials", example: example, &problems) else {
            return nil
        }
        let before = problems.found.count
        let userName = reader.text("username", example: "plant-7", &problems)
        let written = reader.text("password", example: "\"…\"", &problems)
        let path = reader.path("password-file", example: "/etc/tidegate/cloud.password", &problems)
        reader.finish(&problems)
        guard problems.found.count == before else { return nil }
        guard let userName else {
            problems.add(node.place, "credentials need a username", write: example)
            return nil
        }
        if let written, path != nil {
            problems.add(
                written.place, "password and password-file are both written", write: "password-file alone")
            return nil
        }
        // A UTF-8 Encoded String has a length of 16 bits [MQTT5-1.5.4].
        for value in [userName, written].compactMap(\.self) where value.text.utf8.count > 65_535 {
            problems.add(value.place, "this is longer than 65535 bytes", write: "a shorter one")
            return nil
        }
        return CredentialSettings(
            userName: userName.text, password: written.map { .written($0.text) } ?? path.map { .file($0) })
    }
}
