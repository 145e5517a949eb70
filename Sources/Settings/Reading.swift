import GatewayCore
import MQTT

/// From the tree to the values: one function a section of the file, in the order of the file.
extension Settings {
    /// Reads a whole configuration.
    ///
    /// - Parameters:
    ///   - file: what errors call it.
    ///   - hostName: the gateway's name where the file gives none.
    /// - Throws: everything that is wrong, in the order of the file.
    /// - Complexity: O(bytes)
    package static func parse(_ bytes: [UInt8], file: String, hostName: String) throws(SettingsErrors)
        -> Settings
    {
        var problems = Problems(file: file)
        var settings = Settings(gateway: hostName)
        do {
            if let document = try YamlReader.document(in: bytes) { settings.read(document, &problems) }
        } catch {
            problems.add(error.place, error.wrong, write: error.write)
        }
        guard problems.found.isEmpty else { throw problems.inOrder }
        return settings
    }

    private mutating func read(_ document: YamlNode, _ problems: inout Problems) {
        if case .scalar(let scalar) = document.content, scalar.isNull { return }
        guard
            var reader = MappingReader(
                document, subject: "the file", example: "gateway: plant-7", &problems)
        else { return }
        if let (name, place) = reader.text("gateway", example: "plant-7", &problems) {
            if GatewayName.isValid(name) {
                gateway = name
            } else {
                problems.add(
                    place, Self.badName("gateway", name), write: "gateway: \(Address.gatewayName(from: name))"
                )
            }
        }
        if let path = reader.path("state", example: Self.defaultState, &problems) { state = path }
        var bounds: [ListenerBounds] = []
        if let items = reader.list(
            "listeners", example: "- address: 127.0.0.1:1883", emptiness: "no sensor could connect", &problems
        ) {
            bounds = readListeners(items, &problems)
        }
        if let node = reader.take("sessions", &problems) { sessions.read(node, &problems) }
        if let node = reader.take("journal", &problems) { journal.read(node, &problems) }
        if let node = reader.take("limits", &problems) { limits.read(node, &problems) }
        for bound in bounds { bound.check(against: limits, &problems) }
        if let node = reader.take("monitoring", &problems) { monitoring.read(node, &problems) }
        if let items = reader.list("uplinks", example: "- name: cloud", &problems) {
            readUplinks(items, &problems)
        }
        deviceProfilesPath = reader.path(
            "device-profiles", example: "/etc/tidegate/device-profiles", &problems)
        reader.finish(&problems)
    }

    static func badName(_ key: String, _ name: String) -> String {
        "\(key) is 1 to \(GatewayName.lengthMax) letters, digits, - and _, not \"\(name)\""
    }

    /// - Returns: what each listener asks of the limits, which are read later.
    private mutating func readListeners(_ items: [YamlNode], _ problems: inout Problems) -> [ListenerBounds] {
        listeners = []
        var bounds: [ListenerBounds] = []
        for item in items {
            guard let (listener, place) = ListenerSettings.read(item, &bounds, &problems) else { continue }
            if listeners.contains(where: { $0.clashes(with: listener) }) {
                problems.add(place, "another listener has this address already", write: "each address once")
            } else {
                listeners.append(listener)
            }
        }
        return bounds
    }

    private mutating func readUplinks(_ items: [YamlNode], _ problems: inout Problems) {
        for item in items {
            guard let (uplink, place) = UplinkSettings.read(item, gateway: gateway, &problems) else {
                continue
            }
            if uplinks.contains(where: { $0.name == uplink.name }) {
                problems.add(
                    place, "another uplink is called \"\(uplink.name)\" already",
                    write: "a name of its own: what waits for the cloud is kept under it")
            } else {
                uplinks.append(uplink)
            }
        }
    }
}

extension MappingReader {
    /// An absolute path.
    mutating func path(_ key: String, example: String, _ problems: inout Problems) -> String? {
        guard let (text, place) = text(key, example: example, &problems) else { return nil }
        guard text.hasPrefix("/"), !text.utf8.contains(0) else {
            problems.add(
                place, "\(key) is a path that begins with /, not \"\(text)\"", write: "\(key): \(example)")
            return nil
        }
        return text
    }

    /// A span of time in whole seconds; `never` is `UInt32.max`.
    mutating func seconds(
        _ key: String, _ range: ClosedRange<UInt64>, never: Bool = false, example: String,
        _ problems: inout Problems
    ) -> UInt32? {
        let bounds = range.lowerBound * 1000...range.upperBound * 1000
        guard let (duration, place) = duration(key, bounds, never: never, example: example, &problems) else {
            return nil
        }
        guard case .milliseconds(let milliseconds) = duration else { return .max }
        guard milliseconds % 1000 == 0 else {
            problems.add(place, "\(key) is counted in whole seconds", write: "\(key): \(example)")
            return nil
        }
        return UInt32(milliseconds / 1000)
    }
}

extension SessionSettings {
    fileprivate mutating func read(_ node: YamlNode, _ problems: inout Problems) {
        guard
            var reader = MappingReader(
                node, subject: "sessions", example: "sessions: { expiry-max: 30d }", &problems)
        else { return }
        let range: ClosedRange<UInt64> = 1...UInt64(UInt32.max) - 1
        if let seconds = reader.seconds("expiry-for-3.1.1", range, never: true, example: "7d", &problems) {
            expiryFor311Seconds = seconds
        }
        if let seconds = reader.seconds("expiry-max", range, never: true, example: "30d", &problems) {
            expiryMaxSeconds = seconds
        }
        reader.finish(&problems)
    }
}

extension JournalSettings {
    fileprivate mutating func read(_ node: YamlNode, _ problems: inout Problems) {
        guard
            var reader = MappingReader(
                node, subject: "journal", example: "journal: { size-limit: 4 GiB }", &problems)
        else { return }
        if let (text, place) = reader.text("durability", example: "balanced", &problems) {
            if let known = Durability(rawValue: text) {
                durability = known
            } else {
                problems.add(
                    place, "durability is latency, balanced or flash-saver, not \"\(text)\"",
                    write: "durability: balanced")
            }
        }
        flashBudgetBytesPerDay = reader.sizePerDay(
            "flash-budget", 16 << 20...1 << 43, example: "2 GiB/day", &problems)
        if let bytes = reader.size("endurance", 1 << 30...1 << 60, example: "8 TB", &problems) {
            enduranceBytes = UInt64(bytes)
        }
        let segmentPlace = reader.peek("segment-size")
        if let bytes = reader.size("size-limit", 8 << 20...1 << 43, example: "4 GiB", &problems) {
            sizeLimitBytes = bytes
        }
        // The reserve is as large, and is written at one go: by a slow card within the watchdog's time.
        if let bytes = reader.size("segment-size", 256 << 10...64 << 20, example: "4 MiB", &problems) {
            if bytes % 4096 == 0 {
                segmentBytes = bytes
            } else {
                problems.add(
                    segmentPlace, "segment-size is a whole number of 4 KiB pages",
                    write: "segment-size: 4 MiB")
            }
        }
        if let flag = reader.flag("allow-volatile", &problems) { allowsVolatile = flag }
        if let (text, place) = reader.text("on-failure", example: "serve", &problems) {
            if let known = OnFailure(rawValue: text) {
                onFailure = known
            } else {
                problems.add(
                    place, "on-failure is serve or exit, not \"\(text)\"", write: "on-failure: serve")
            }
        }
        reader.finish(&problems)
        if sizeLimitBytes / segmentBytes < 8 {
            problems.add(
                node.place,
                "the journal has room for fewer than 8 segments, and could not reclaim any of them in time",
                write: "size-limit: \(ByteSize.text(UInt64(segmentBytes) * 8)) or more")
        }
    }
}

extension LimitSettings {
    fileprivate mutating func read(_ node: YamlNode, _ problems: inout Problems) {
        guard
            var reader = MappingReader(
                node, subject: "limits", example: "limits: { connections: 10000 }", &problems)
        else { return }
        if let count = reader.count("connections", 1...1_000_000, example: 10_000, &problems) {
            connections = count
        }
        // The largest packet there is: a Remaining Length of 268 435 455 and 5 bytes before it [MQTT5-2.1.4].
        if let bytes = reader.size("packet-size", 1024...256 << 20, example: "1 MiB", &problems) {
            packetBytes = bytes
        }
        if let count = reader.count("inflight", 1...10_000, example: 100, &problems) {
            inflight = UInt16(count)
        }
        if let count = reader.count("queue-messages", 1...1_000_000_000, example: 1_000_000, &problems) {
            queueMessages = count
        }
        if case (.milliseconds(let milliseconds), _)? = reader.duration(
            "connect-timeout", 1000...600_000, example: "10s", &problems)
        {
            connectTimeoutMilliseconds = milliseconds
        }
        if let flag = reader.flag("validate-payload-format", &problems) { validatesPayloadFormat = flag }
        reader.finish(&problems)
    }
}

extension MonitoringSettings {
    fileprivate mutating func read(_ node: YamlNode, _ problems: inout Problems) {
        guard
            var reader = MappingReader(
                node, subject: "monitoring", example: "monitoring: { sys-interval: 10s }", &problems)
        else { return }
        switch reader.duration("sys-interval", 1000...3_600_000, never: true, example: "10s", &problems) {
        case (.milliseconds(let milliseconds), _)?: sysIntervalMilliseconds = milliseconds
        case (.never, _)?: sysIntervalMilliseconds = nil
        case nil: break
        }
        reader.finish(&problems)
    }
}
