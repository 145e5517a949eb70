import GatewayCore
import MQTT

/// One line of an uplink's `routes`.
extension UplinkSettings {
    private static let routeExample = "{ out: \"sensors/#\", to: \"site/${gateway}/sensors/#\" }"
    /// Besides the queue that is the uplink's own: eight share its Packet Identifiers.
    static let furtherLanesMax = 7
    /// More than one route excepts is a sign of a filter that is too wide.
    private static let exceptionsMax = 64

    mutating func readRoute(_ node: YamlNode, gateway: String, _ problems: inout Problems) {
        guard
            var reader = MappingReader(
                node, subject: "a route", example: "- \(Self.routeExample)", &problems)
        else { return }
        let before = problems.found.count
        let out = reader.text("out", example: "\"sensors/#\"", &problems)
        let into = reader.text("in", example: "\"site/${gateway}/commands/#\"", &problems)
        let both = reader.text("both", example: "\"shared/#\"", &problems)
        let to = reader.text("to", example: "\"site/${gateway}/sensors/#\"", &problems)
        let qos = reader.count("qos", 0...2, example: 1, &problems)
        let carriesRetain = reader.flag("retain", &problems)
        let except = reader.texts(
            "except", example: "except: [ \"sensors/raw/#\" ]", countMax: Self.exceptionsMax, &problems)
        let waiting = Waiting.read(&reader, isOut: into == nil, &problems)
        reader.finish(&problems)
        guard problems.found.count == before else { return }
        let written = [out, into, both].compactMap(\.self)
        guard let source = written.first, written.count == 1 else {
            problems.add(node.place, "a route has one of out, in and both", write: "- \(Self.routeExample)")
            return
        }
        guard let from = Self.fill(source, gateway: gateway, &problems) else { return }
        var target: String?
        if let to {
            guard let filled = Self.fill(to, gateway: gateway, &problems) else { return }
            target = filled
        }
        var exceptions = Exceptions(side: from, otherSide: target ?? from)
        for item in except ?? [] {
            guard let text = Self.fill(item, gateway: gateway, &problems) else { return }
            exceptions.read(text, at: item.place, isBoth: both != nil, &problems)
        }
        guard problems.found.count == before else { return }

        let cap = qos.flatMap { QoS(rawValue: UInt8($0)) } ?? .exactlyOnce
        do {
            let template = try RouteTemplate(from: from, to: target)
            var route = RouteSettings(
                direction: into == nil ? .out : .in, filter: template.filter, rename: template.rename,
                qos: cap)
            route.carriesRetain = carriesRetain ?? true
            route.except = exceptions.here
            (route.priority, route.isLiveFirst, route.queue) = (
                waiting.priority, waiting.isLiveFirst, waiting.queue
            )
            var added = [route]
            if both != nil {
                // The way back: what arrives there under the other name, without what this side does not send.
                let back = try RouteTemplate(from: target ?? from, to: target == nil ? nil : from)
                var returning = RouteSettings(
                    direction: .in, filter: back.filter, rename: back.rename, qos: cap)
                returning.carriesRetain = carriesRetain ?? true
                returning.except = exceptions.there
                added.append(returning)
            }
            for route in added
            where routes.contains(where: { $0.direction == route.direction && $0.filter == route.filter }) {
                problems.add(
                    source.place, "another route carries \"\(source.text)\" already",
                    write: "each filter once")
                return
            }
            routes += added
        } catch {
            let place = error.isAboutTarget ? to?.place ?? source.place : source.place
            problems.add(place, error.wrong, write: error.write)
        }
    }

    /// Lanes are at most eight an uplink, and the first is its own.
    func checkLanes(_ place: Place?, _ problems: inout Problems) {
        var names: [String] = []
        for name in routes.flatMap(\.lanes) where !names.contains(name) { names.append(name) }
        guard names.count > UplinkSettings.furtherLanesMax else { return }
        problems.add(
            place,
            "priorities, live-first and queues of their own make \(names.count) further queues of these routes, and an "
                + "uplink has at most \(UplinkSettings.furtherLanesMax)",
            write: "fewer routes with a queue of their own, or a second uplink")
    }

    static func fill(
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

/// The keys that say how messages of an `out` route wait.
private struct Waiting {
    var priority = UplinkRoutes.Priority.normal
    var isLiveFirst = false
    var queue: QueueBounds?

    static func read(_ reader: inout MappingReader, isOut: Bool, _ problems: inout Problems) -> Waiting {
        var waiting = Waiting()
        let places = ["priority", "order", "queue"].map { (key: $0, place: reader.peek($0)) }
        if let (text, place) = reader.text("priority", example: "high", &problems) {
            switch text {
            case "high": waiting.priority = .high
            case "normal": waiting.priority = .normal
            case "low": waiting.priority = .low
            default:
                problems.add(
                    place, "priority is high, normal or low, not \"\(text)\"", write: "priority: high")
            }
        }
        if let (text, place) = reader.text("order", example: "live-first", &problems) {
            switch text {
            case "live-first": waiting.isLiveFirst = true
            case "as-received": waiting.isLiveFirst = false
            default:
                problems.add(
                    place, "order is as-received or live-first, not \"\(text)\"", write: "order: live-first")
            }
        }
        if let node = reader.take("queue", &problems) { waiting.queue = QueueBounds.read(node, &problems) }
        if !isOut {
            for case (let key, let place?) in places {
                problems.add(
                    place, "\(key) is about what waits for the cloud, and this route comes from there",
                    write: "\(key) at a route with out")
            }
        }
        return waiting
    }
}

extension QueueBounds {
    fileprivate static func read(_ node: YamlNode, _ problems: inout Problems) -> QueueBounds? {
        let example = "queue: { messages: 10000, when-full: drop-oldest }"
        guard var reader = MappingReader(node, subject: "queue", example: example, &problems) else {
            return nil
        }
        var bounds = QueueBounds()
        bounds.messagesMax = reader.count("messages", 1...1_000_000_000, example: 10_000, &problems)
        bounds.bytesMax = reader.size("bytes", 4096...1 << 43, example: "16 MiB", &problems)
        if let (text, place) = reader.text("when-full", example: "drop-oldest", &problems) {
            switch text {
            case "refuse": bounds.whenFull = .refuse
            case "drop-oldest": bounds.whenFull = .dropOldest
            case "drop-newest": bounds.whenFull = .dropNewest
            default:
                problems.add(
                    place, "when-full is refuse, drop-oldest or drop-newest, not \"\(text)\"",
                    write: "when-full: drop-oldest")
            }
        }
        let before = problems.found.count
        reader.finish(&problems)
        if bounds.messagesMax == nil, bounds.bytesMax == nil, problems.found.count == before {
            problems.add(node.place, "queue has no bound", write: example)
        }
        return bounds
    }
}

/// What a route does not carry, on its own side and for `both` on the other.
private struct Exceptions {
    private let side: String
    private let otherSide: String
    private(set) var here: [TopicFilter] = []
    private(set) var there: [TopicFilter] = []

    init(side: String, otherSide: String) {
        self.side = side
        self.otherSide = otherSide
    }

    mutating func read(_ text: String, at place: Place, isBoth: Bool, _ problems: inout Problems) {
        guard let filter = TopicFilter(text), filter.shareName == nil else {
            problems.add(
                place,
                "\"\(text)\" is not a topic filter: # stands alone and last, + stands alone in its level",
                write: "a filter such as \"sensors/raw/#\"")
            return
        }
        guard let route = TopicFilter(side), filter.overlaps(route) else {
            problems.add(
                place, "\"\(text)\" excepts nothing: this route carries only \"\(side)\"",
                write: "a filter that is part of \"\(side)\"")
            return
        }
        here.append(filter)
        guard isBoth else { return }
        let (prefix, otherPrefix) = (Self.prefix(side), Self.prefix(otherSide))
        guard prefix != otherPrefix else { return there.append(filter) }
        // What stands before the first wildcard is renamed; an exception that does not spell it out could not be.
        let renamed = text.hasPrefix(prefix) ? otherPrefix + text.dropFirst(prefix.count) : nil
        guard let renamed, let filter = TopicFilter(renamed) else {
            problems.add(
                place, "what a route with both excepts begins as the route does, with \"\(prefix)\"",
                write: "\"\(prefix)…\", or one route with out and one with in")
            return
        }
        there.append(filter)
    }

    /// The literal levels with their last slash.
    private static func prefix(_ filter: String) -> String {
        String(filter.prefix { $0 != "+" && $0 != "#" })
    }
}
