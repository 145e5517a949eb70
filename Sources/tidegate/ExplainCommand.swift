import ArgumentParser
import GatewayCore
import MQTT
import Operations
import Settings

extension ProfileCommand {
    /// `tidegate profile explain CLIENT`: which profile a client gets, why, and what that means for it.
    struct Explain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Says which profile a client gets and why, without connecting anything.")

        @OptionGroup var configuration: ConfigurationOptions

        @Argument(help: "The client identifier.")
        var client: String

        @Option(help: "The user name it connects with.")
        var username: String?

        @Option(help: "The subject of its certificate, as in CN=press-12,O=Plant 7.")
        var certificateSubject: String?

        @Option(help: "The issuer of its certificate.")
        var certificateIssuer: String?

        @Option(help: "The address of the listener; the first one when it is not said.")
        var listener: String?

        @Option(help: "A topic or topic filter: what it may do with that. May be given more than once.")
        var topic: [String] = []

        func run() throws {
            let settings = try configuration.settings()
            var device = DeviceNames(clientIdentifier: client, username: username)
            if certificateSubject != nil || certificateIssuer != nil {
                device.certificate = CertificateNames(
                    subject: certificateSubject ?? "", issuer: certificateIssuer ?? "")
            }
            if let listener {
                guard let index = settings.listenerAddresses.firstIndex(of: listener) else {
                    let known = settings.listenerAddresses.joined(separator: ", ")
                    complain("no listener is at \(listener); there is \(known)")
                    throw ExitCode(ExitStatus.failed.rawValue)
                }
                device.listener = index
            }
            let explanation = GatewayPlan(settings).explain(device, topics: topic)
            for line in explanation.lines(settings) { print(line) }
            if explanation.refusal != nil { throw ExitCode(ExitStatus.failed.rawValue) }
        }
    }
}

extension ProfileExplanation {
    /// In plain words.
    fileprivate func lines(_ settings: Settings) -> [String] {
        var lines: [String] = []
        for other in passedOver {
            let why = other.disagreeing.map { $0.map(\.words).joined(separator: " and ") }
            lines.append(
                "not \(other.name): its " + why.joined(separator: ", and in the next its ") + " is another")
        }
        if let match {
            let words = profile.matches[match].words(listeners: settings.listenerAddresses)
            lines.append("profile \(profile.name): its \(words) matches")
        } else {
            lines.append("profile \(profile.name): nothing else matches")
        }
        if let refusal {
            let value = refusal.value.map { "\"\($0)\"" } ?? "nothing"
            lines.append(
                "REFUSED at CONNECT, \(refusal.reason.words): ${\(refusal.variable.rawValue)} would be \(value), and a name in a topic has no +, # or /, and does not begin with $"
            )
        }
        lines += profile.settingLines
        lines += topics.flatMap(\.lines)
        return lines
    }
}

extension DeviceMatch.Part {
    fileprivate var words: String {
        switch self {
        case .clientIdentifier: "client identifier"
        case .username: "user name"
        case .certificateSubject: "certificate subject"
        case .certificateIssuer: "certificate issuer"
        case .listener: "listener"
        }
    }
}

extension ProfileExplanation.TopicRuling {
    fileprivate var lines: [String] {
        var lines: [String] = []
        if let publish {
            lines.append("\(topic): it may\(publish.isAllowed ? "" : " NOT") publish: \(publish.words)")
        }
        if let subscribe {
            lines.append("\(topic): it may\(subscribe.isAllowed ? "" : " NOT") subscribe: \(subscribe.words)")
        }
        if isKept { lines.append("\(topic): its last value is kept") }
        if let exception { lines.append("\(topic): the cloud gets what is news by rule \(exception + 1)") }
        return lines
    }
}

extension ProfileExplanation.Ruling {
    fileprivate var words: String {
        switch self {
        case .allowed(by: let rule?): "allowed by \(rule)"
        case .allowed(by: nil): "nothing speaks against it"
        case .denied(by: let rule): "denied by \(rule)"
        case .notAllowed: "nothing allows it"
        }
    }
}

extension DeviceProfile {
    /// What is set, one setting a line.
    fileprivate var settingLines: [String] {
        var lines: [String] = []
        func add(_ name: String, _ value: String?) { if let value { lines.append("  \(name): \(value)") } }
        func seconds(_ value: UInt32) -> String { value == .max ? "never" : "\(value) s" }
        add("session expiry before MQTT 5", sessionExpirySecondsBefore5.map(seconds))
        add("session expiry at most", sessionExpirySecondsMax.map(seconds))
        add("keep-alive at least", keepAliveSecondsMin.map { "\($0) s" })
        add("keep-alive at most", keepAliveSecondsMax.map { "\($0) s" })
        add("QoS at most", maximumQoS.map { "\($0.rawValue)" })
        add("in flight at most", receiveMaximum.map { "\($0) messages" })
        add("packets at most", packetBytesMax.map { "\($0) bytes" })
        add("may publish", publish.words)
        add("may subscribe to", subscribe.words)
        add(
            "messages each second",
            rate?.messagesPerSecond.map { "\($0), \(rate?.messagesBurst ?? $0) at once" })
        add("bytes each second", rate?.bytesPerSecond.map { "\($0), \(rate?.bytesBurst ?? $0) at once" })
        add("queue at most", queue?.messagesMax.map { "\($0) messages" })
        add("queue at most", queue?.bytesMax.map { "\($0) bytes" })
        add("a full queue", queue.map { $0.whenFull.words })
        add("durability", durability.map { $0 == .flashSaver ? "flash-saver" : "\($0)" })
        add(
            "messages expire",
            messageExpiry?.defaultSeconds.map { "after \($0) s, unless they say otherwise" })
        add("messages expire", messageExpiry?.secondsMax.map { "after \($0) s at most" })
        add("uplinks", uplink.names.map { $0.isEmpty ? "none" : $0.joined(separator: ", ") })
        add("priority", uplink.priority.map { "\($0)" })
        add("offline after", liveness.map { "\($0.silentSeconds) s of silence, told at \($0.stateTopic)" })
        for rule in reportByException { add("the cloud gets news of", rule.words) }
        add("keeps the last value of", keepsLastValue.isEmpty ? nil : keepsLastValue.listed)
        return lines
    }
}

extension [TopicTemplate] {
    fileprivate var listed: String { map(\.description).joined(separator: ", ") }
}

extension TopicRights {
    /// nil where everything is allowed.
    fileprivate var words: String? {
        let allowed = allow.map { $0.isEmpty ? "nothing" : $0.listed } ?? "everything"
        if deny.isEmpty { return allow == nil ? nil : allowed }
        return "\(allowed), but not \(deny.listed)"
    }
}

extension ReportByException {
    fileprivate var words: String {
        let place = value.map { " at \($0)" } ?? ""
        let band =
            switch deadband {
            case .absolute(let band): "\(band)"
            case .relative(let part): "\(part * 100) %"
            }
        let least = intervalMillisecondsMin > 0 ? ", at most every \(intervalMillisecondsMin) ms" : ""
        let most = intervalMillisecondsMax.map { ", at least every \($0) ms" } ?? ""
        return "\(filter)\(place): changes of more than \(band)\(least)\(most)"
    }
}

extension QueueBounds.WhenFull {
    fileprivate var words: String {
        switch self {
        case .refuse: "refuses"
        case .dropOldest: "drops the oldest"
        case .dropNewest: "drops the newest"
        }
    }
}
