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
        let addresses = readAddresses(&reader, &problems)
        var uplink = UplinkSettings(
            name: name?.text ?? "", addresses: addresses, clientIdentifier: "\(gateway)-\(name?.text ?? "")")
        uplink.readFailBack(&reader, &problems)
        uplink.readWay(&reader, &problems)
        uplink.readConnection(&reader, &problems)
        uplink.readSessionExpiry(&reader, &problems)
        uplink.readTopicAliases(&reader, &problems)
        if let node = reader.take("reconnect", &problems) { uplink.readReconnect(node, &problems) }
        if let node = reader.take("status", &problems) {
            uplink.status = StatusSettings.read(node, gateway: gateway, &problems)
        }
        uplink.readProvenance(&reader, &problems)
        if let node = reader.take("drain", &problems) { uplink.drain.read(node, &problems) }
        if let node = reader.take("dead-letters", &problems) { uplink.readDeadLetters(node, &problems) }
        let routesPlace = reader.peek("routes")
        let routes = reader.list(
            "routes", example: "- { out: \"sensors/#\" }", emptiness: "the uplink carries nothing", &problems)
        for route in routes ?? [] { uplink.readRoute(route, gateway: gateway, &problems) }
        uplink.checkLanes(routesPlace, &problems)
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
        switch reader.duration("ack-timeout", 5000...3_600_000, never: true, example: "60s", &problems) {
        case (.milliseconds(let milliseconds), let place)?:
            if milliseconds % 1000 != 0 {
                problems.add(place, "ack-timeout is counted in whole seconds", write: "ack-timeout: 60s")
            }
            ackTimeoutSeconds = UInt32(milliseconds / 1000)
        case (.never, _)?: ackTimeoutSeconds = 0
        case nil: break
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

    private mutating func readTopicAliases(_ reader: inout MappingReader, _ problems: inout Problems) {
        guard let place = reader.peek("topic-aliases"),
            let count = reader.count("topic-aliases", 0...65_535, example: 10, &problems)
        else { return }
        if version < .v5_0, count > 0 {
            problems.add(place, "MQTT 3.1.1 has no topic aliases", write: "version: 5, or no topic-aliases")
        }
        topicAliasMax = UInt16(count)
    }

    /// `provenance`: true for everything, or a list of what is wanted.
    private mutating func readProvenance(_ reader: inout MappingReader, _ problems: inout Problems) {
        let example = "provenance: [ gateway, seq, received-at ]"
        let place = reader.peek("provenance")
        guard let names = reader.texts("provenance", example: example, countMax: 3, &problems) else { return }
        for (name, place) in names {
            switch name {
            case "gateway": provenance.addsGateway = true
            case "seq": provenance.addsSequence = true
            case "received-at": provenance.addsReceivedAt = true
            case "true" where names.count == 1:
                (provenance.addsGateway, provenance.addsSequence, provenance.addsReceivedAt) = (
                    true, true, true
                )
            case "false" where names.count == 1: break
            default:
                problems.add(
                    place,
                    "provenance is true, false, or a list of gateway, seq and received-at, not \"\(name)\"",
                    write: example)
            }
        }
        if version < .v5_0, provenance.addsAnything {
            problems.add(
                place, "provenance is carried by User Properties, which MQTT 3.1.1 does not have",
                write: "version: 5, or no provenance")
        }
    }

    private mutating func readDeadLetters(_ node: YamlNode, _ problems: inout Problems) {
        guard
            var reader = MappingReader(
                node, subject: "dead-letters", example: "dead-letters: { messages: 100000, bytes: 64 MiB }",
                &problems)
        else { return }
        if let count = reader.count("messages", 0...10_000_000, example: 100_000, &problems) {
            deadLetters = count
        }
        if let bytes = reader.size("bytes", 0...1 << 40, example: "64 MiB", &problems) {
            deadLetterBytes = bytes
        }
        reader.finish(&problems)
    }
}

extension UplinkRoutes.Drain {
    fileprivate mutating func read(_ node: YamlNode, _ problems: inout Problems) {
        guard
            var reader = MappingReader(
                node, subject: "drain", example: "drain: { messages: 500/s, bytes: 64 KiB/s }", &problems)
        else { return }
        messagesPerSecond = reader.countPerSecond("messages", 1...1_000_000, example: "500/s", &problems)
        bytesPerSecond = reader.sizePerSecond("bytes", 64...1 << 30, example: "64 KiB/s", &problems)
        reader.finish(&problems)
    }
}

extension StatusSettings {
    fileprivate static func read(_ node: YamlNode, gateway: String, _ problems: inout Problems)
        -> StatusSettings?
    {
        let example = "status: { topic: \"site/${gateway}/status\" }"
        guard var reader = MappingReader(node, subject: "status", example: example, &problems) else {
            return nil
        }
        let topic = reader.text("topic", example: "\"site/${gateway}/status\"", &problems)
        var status = StatusSettings(topic: [])
        if let (text, place) = reader.text("online", example: "\"1\"", &problems) {
            status.online = checked(text, "online", place, &problems)
        }
        if let (text, place) = reader.text("offline", example: "\"0\"", &problems) {
            status.offline = checked(text, "offline", place, &problems)
        }
        if let qos = reader.count("qos", 0...2, example: 1, &problems) {
            status.qos = QoS(rawValue: UInt8(qos)) ?? .atLeastOnce
        }
        if let flag = reader.flag("retain", &problems) { status.isRetained = flag }
        reader.finish(&problems)
        guard let topic else {
            problems.add(node.place, "status needs a topic", write: example)
            return nil
        }
        guard let filled = UplinkSettings.fill(topic, gateway: gateway, &problems) else { return nil }
        guard TopicName.isValid(Array(filled.utf8)) else {
            problems.add(
                topic.place, "\"\(filled)\" is not a topic: it has no + and no #",
                write: "topic: \"site/${gateway}/status\"")
            return nil
        }
        status.topic = Array(filled.utf8)
        return status
    }

    /// The payload of a Will has at most 65 535 bytes [MQTT5-3.1.3.4]; a status needs few.
    private static func checked(_ text: String, _ key: String, _ place: Place, _ problems: inout Problems)
        -> String
    {
        if text.utf8.count > 1024 {
            problems.add(place, "\(key) is longer than 1024 bytes", write: "a word")
        }
        return text
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
