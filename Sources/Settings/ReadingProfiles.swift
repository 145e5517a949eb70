import GatewayCore
import MQTT

/// A device profile with the file that says it.
package struct ProfileSettings: Hashable, Sendable {
    package var profile: DeviceProfile
    /// The smaller comes first; nil of the default.
    package var order: Int?
    /// What errors call the file.
    package var file: String

    /// JSON Schema of the files, for editors; ends with a line end.
    package static var schema: String {
        JSONSchema.document("Tidegate device profile", ProfileKeys.about, ProfileKeys.all).written() + "\n"
    }
}

/// What a profile may speak of beside itself.
struct ProfileSurroundings {
    var listeners: [ListenerSettings]
    var uplinks: [String]
}

extension ProfileSettings {
    /// Reads one file.
    ///
    /// - Throws: everything that is wrong, in the order of the file.
    static func parse(
        _ bytes: [UInt8], file: String, among surroundings: ProfileSurroundings
    ) throws(SettingsErrors) -> ProfileSettings {
        var problems = Problems(file: file)
        var read: (profile: DeviceProfile, order: Int?)?
        do throws(YamlError) {
            guard let document = try YamlReader.document(in: bytes) else {
                throw YamlError(
                    place: Place(line: 1, column: 1), wrong: "the file says nothing",
                    write: "profile: battery-sensor, or remove the file")
            }
            if let mapping = ReadMapping(document, "the file", ProfileKeys.all, &problems) {
                read = Self.profile(mapping, surroundings, &problems)
            }
        } catch {
            problems.add(error.place, error.wrong, write: error.write)
        }
        guard let read, problems.found.isEmpty else { throw problems.inOrder }
        return ProfileSettings(profile: read.profile, order: read.order, file: file)
    }

    private static func profile(
        _ mapping: ReadMapping, _ surroundings: ProfileSurroundings, _ problems: inout Problems
    ) -> (DeviceProfile, Int?)? {
        guard let name = mapping.text("profile") else { return nil }
        if !GatewayName.isValid(name) {
            problems.add(
                mapping.place(of: "profile"), Settings.badName("profile", name),
                write: "profile: \(Address.gatewayName(from: name))")
        }
        var profile = DeviceProfile(
            name: name,
            matches: mapping.mappings("match").compactMap { $0.match(surroundings, &problems) })
        let order: Int? = mapping.number("order")
        if mapping.isWritten("match"), order == nil {
            problems.add(
                mapping.place(of: "match"), "a profile with match says in which order it is tried",
                write: "order: 20")
        }
        if !mapping.isWritten("match"), mapping.isWritten("order") {
            problems.add(
                mapping.place(of: "order"), "a profile without match is the default, which comes last",
                write: "match beside it, or no order")
        }
        let sessions = mapping.mapping("sessions")
        profile.sessionExpirySecondsBefore5 = sessions?.number("expiry-for-3.1.1")
        profile.sessionExpirySecondsMax = sessions?.number("expiry-max")
        profile.maximumQoS = mapping.number("qos").flatMap(QoS.init(rawValue:))
        profile.receiveMaximum = mapping.number("receive-maximum")
        profile.packetBytesMax = mapping.number("packet-size")
        mapping.readKeepAlive(into: &profile, &problems)
        if let rights = mapping.mapping("publish")?.rights(&problems) { profile.publish = rights }
        if let rights = mapping.mapping("subscribe")?.rights(&problems) { profile.subscribe = rights }
        profile.rate = mapping.mapping("rate")?.rate(&problems)
        profile.queue = mapping.mapping("queue")?.queue(&problems)
        profile.durability = mapping.text("durability").map {
            $0 == "latency" ? .latency : $0 == "flash-saver" ? .flashSaver : .balanced
        }
        profile.messageExpiry = mapping.mapping("message-expiry")?.messageExpiry(&problems)
        if let choice = mapping.mapping("uplink")?.uplinkChoice(surroundings, &problems) {
            profile.uplink = choice
        }
        profile.liveness = mapping.mapping("liveness")?.liveness(&problems)
        profile.reportByException = mapping.mappings("report-by-exception").compactMap {
            $0.exception(&problems)
        }
        profile.keepsLastValue = mapping.templates("keep-last-value", &problems) ?? []
        return (profile, order)
    }
}

// The parts of a profile, from what was read of them.
extension ReadMapping {
    fileprivate func match(
        _ surroundings: ProfileSurroundings, _ problems: inout Problems
    ) -> DeviceMatch? {
        var match = DeviceMatch()
        match.clientIdentifier = text("client-id").map { Glob($0) }
        match.username = text("username").map { Glob($0) }
        match.certificateSubject = text("certificate-subject").map { Glob($0) }
        match.certificateIssuer = text("certificate-issuer").map { Glob($0) }
        if let address = text("listener") {
            match.listener = surroundings.listeners.firstIndex { $0.isAt(address) }
            if match.listener == nil {
                let known = surroundings.listeners.map(\.addressText).joined(separator: ", ")
                problems.add(
                    place(of: "listener"), "no listener is at \"\(address)\"", write: "one of \(known)")
                return nil
            }
        }
        if match == DeviceMatch() {
            problems.add(
                place, "a match that says nothing would be everybody's",
                write: "client-id: \"battery-*\", or leave match out to make this the default")
            return nil
        }
        return match
    }

    fileprivate func readKeepAlive(into profile: inout DeviceProfile, _ problems: inout Problems) {
        guard let bounds = mapping("keep-alive") else { return }
        profile.keepAliveSecondsMin = bounds.number("min")
        profile.keepAliveSecondsMax = bounds.number("max")
        if let low = profile.keepAliveSecondsMin, let high = profile.keepAliveSecondsMax, low > high {
            problems.add(
                bounds.place, "the shortest keep-alive is longer than the longest", write: "min: \(high)s")
        }
    }

    fileprivate func rights(_ problems: inout Problems) -> TopicRights {
        TopicRights(allow: templates("allow", &problems), deny: templates("deny", &problems) ?? [])
    }

    /// Topic Filters with variables; nil when the key is not written.
    fileprivate func templates(_ key: String, _ problems: inout Problems) -> [TopicTemplate]? {
        guard let texts = texts(key) else { return nil }
        var templates: [TopicTemplate] = []
        for (text, place) in texts {
            if let template = TopicTemplate.read(text, at: place, key, as: .filter, &problems) {
                templates.append(template)
            }
        }
        return templates
    }

    fileprivate func rate(_ problems: inout Problems) -> PublishRate? {
        let rate = PublishRate(
            messagesPerSecond: number("messages"), bytesPerSecond: number("bytes"),
            messagesBurst: number("burst"), bytesBurst: number("bytes-burst"))
        if isWritten("burst"), !isWritten("messages") {
            problems.add(
                place(of: "burst"), "burst is counted in messages", write: "messages: 10/s beside it")
        }
        if isWritten("bytes-burst"), !isWritten("bytes") {
            problems.add(
                place(of: "bytes-burst"), "bytes-burst needs to know how many come each second",
                write: "bytes: 16 KiB/s beside it")
        }
        if !isWritten("messages"), !isWritten("bytes"), !isWritten("burst"), !isWritten("bytes-burst") {
            problems.add(place, "rate has no bound", write: "rate: { messages: 10/s }")
        }
        return rate
    }

    fileprivate func queue(_ problems: inout Problems) -> QueueBounds? {
        var bounds = QueueBounds(messagesMax: number("messages"), bytesMax: number("bytes"))
        switch text("when-full") {
        case "drop-oldest": bounds.whenFull = .dropOldest
        case "drop-newest": bounds.whenFull = .dropNewest
        default: bounds.whenFull = .refuse
        }
        if !isWritten("messages"), !isWritten("bytes") {
            problems.add(
                place, "queue has no bound", write: "queue: { messages: 10000, when-full: drop-oldest }")
        }
        return bounds
    }

    fileprivate func messageExpiry(_ problems: inout Problems) -> MessageExpiry? {
        let expiry = MessageExpiry(defaultSeconds: number("default"), secondsMax: number("max"))
        if let given = expiry.defaultSeconds, let most = expiry.secondsMax, given > most {
            problems.add(
                place(of: "default"), "the default is longer than the longest",
                write: "default: \(Duration.milliseconds(UInt64(most) * 1000).text)")
        }
        return expiry
    }

    fileprivate func uplinkChoice(
        _ surroundings: ProfileSurroundings, _ problems: inout Problems
    ) -> UplinkChoice {
        var choice = UplinkChoice()
        switch text("priority") {
        case "high": choice.priority = .high
        case "normal": choice.priority = .normal
        case "low": choice.priority = .low
        default: choice.priority = nil
        }
        guard let names = texts("only") else { return choice }
        choice.names = names.map(\.text)
        for (name, place) in names where !surroundings.uplinks.contains(name) {
            let known = surroundings.uplinks.map { "\"\($0)\"" }.joined(separator: ", ")
            problems.add(
                place, "no uplink is called \"\(name)\"",
                write: known.isEmpty ? "no only: there are no uplinks" : "one of \(known)")
        }
        return choice
    }

    fileprivate func liveness(_ problems: inout Problems) -> Liveness? {
        guard let seconds: UInt32 = number("silent-for"), let text = text("topic"),
            let topic = TopicTemplate.read(text, at: place(of: "topic"), "topic", as: .name, &problems)
        else { return nil }
        var liveness = Liveness(silentSeconds: seconds, stateTopic: topic)
        if let online = self.text("online") { liveness.online = online }
        if let offline = self.text("offline") { liveness.offline = offline }
        if topic.variables.isDisjoint(with: [.clientIdentifier, .username]) {
            problems.add(
                place(of: "topic"), "all devices of this profile would share \"\(text)\"",
                write: "topic: \"state/${clientid}\"")
        }
        return liveness
    }

    fileprivate func exception(_ problems: inout Problems) -> ReportByException? {
        guard let text = text("topic"),
            let filter = TopicTemplate.read(text, at: place(of: "topic"), "topic", as: .filter, &problems)
        else { return nil }
        guard let written = self.text("deadband") else { return nil }
        guard let deadband = ReportByException.Deadband(written) else {
            problems.add(
                place(of: "deadband"), "deadband is a number or a percentage, not \"\(written)\"",
                write: "deadband: 0.5, or deadband: 5 %")
            return nil
        }
        var report = ReportByException(filter: filter, deadband: deadband)
        if let pointer = self.text("value") {
            report.value = JSONPointer(pointer)
            if report.value == nil {
                problems.add(
                    place(of: "value"), "\"\(pointer)\" is no place in a JSON text (RFC 6901)",
                    write: "value: /temperature")
            }
        }
        report.intervalMillisecondsMin = number("min-interval") ?? 0
        report.intervalMillisecondsMax = number("max-interval")
        if let most = report.intervalMillisecondsMax, most < report.intervalMillisecondsMin {
            problems.add(
                place(of: "max-interval"), "max-interval is shorter than min-interval",
                write:
                    "max-interval: \(Duration.milliseconds(report.intervalMillisecondsMin).text), or longer")
        }
        return report
    }
}

extension ReportByException.Deadband {
    /// nil unless `text` is a number, perhaps with `%` behind it, and not negative.
    init?(_ text: String) {
        let isRelative = text.last == "%"
        let digits = isRelative ? text.dropLast() : text[...]
        let trimmed = digits.last == " " ? digits.dropLast() : digits
        // As the schema has it: Double would read 0x10, 1e3 and nan as well.
        let parts = trimmed.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count <= 2,
            parts.allSatisfy({ part in
                !part.isEmpty && part.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
            }),
            let number = Double(trimmed), number.isFinite
        else { return nil }
        self = isRelative ? .relative(number / 100) : .absolute(number)
    }
}

extension TopicTemplate {
    fileprivate static func read(
        _ text: String, at place: Place, _ key: String, as kind: Kind, _ problems: inout Problems
    ) -> TopicTemplate? {
        do throws(Problem) { return try TopicTemplate(text, as: kind) } catch {
            switch error {
            case .unclosed:
                problems.add(place, "\"\(text)\" has ${ without }", write: "\"${clientid}\"")
            case .unknownVariable(let name):
                let known = Variable.allCases.map { "${\($0.rawValue)}" }.joined(separator: ", ")
                problems.add(place, "nothing is called \"${\(name)}\"", write: "one of \(known)")
            case .notAFilter:
                problems.add(
                    place,
                    "\"\(text)\" is not a topic filter: # stands alone and last, + stands alone in its level",
                    write: "a filter such as \"sensors/${clientid}/#\"")
            case .notAName:
                problems.add(
                    place, "\(key) is one topic, and \"\(text)\" has wildcards",
                    write: "a topic such as \"state/${clientid}\"")
            }
            return nil
        }
    }
}

extension ListenerSettings {
    fileprivate func isAt(_ address: String) -> Bool {
        do throws(Refusal) {
            return clashes(with: try ListenerSettings(address: address, isAnonymous: true, lowestPort: 0))
        } catch {
            // Why it is no address does not matter here: no listener is called so.
            return false
        }
    }

    /// As it is written in the file.
    var addressText: String {
        switch endpoint {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path, _): "unix:\(path)"
        }
    }
}
