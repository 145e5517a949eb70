import CYaml

/// A piece of a YAML document with its place in the file: as much of YAML as a configuration needs.
struct YamlNode {
    var place: Place
    var content: Content

    enum Content {
        case scalar(Scalar)
        case sequence([YamlNode])
        case mapping([Entry])
    }

    struct Scalar {
        var text: String
        /// Written without quotes: only then do `null` and `~` mean nothing at all.
        var isPlain: Bool

        var isNull: Bool { isPlain && (text.isEmpty || text == "~" || text == "null") }
    }

    /// Keys are unique within their mapping.
    struct Entry {
        var key: String
        var keyPlace: Place
        var value: YamlNode
    }

    /// What it is, for sentences like "`listeners` is a mapping".
    var kind: String {
        switch content {
        case .scalar(let scalar): scalar.isNull ? "empty" : "a single value"
        case .sequence: "a list"
        case .mapping: "a mapping"
        }
    }
}

/// Bounds for foreign text: a configuration is a page or two.
enum YamlLimits {
    /// A larger file is refused before it is read.
    static let bytesMax = 1 << 20
    /// The deepest list or mapping inside another.
    static let depthMax = 16
}

/// What libyaml or this reader does not accept; reading ends at the first, because what follows a broken
/// line cannot be judged.
struct YamlError: Error {
    var place: Place
    var wrong: String
    var write: String?
}

/// Reads one YAML document from libyaml's event parser.
///
/// Anchors, aliases, tags and further documents are refused: they let one line mean something that stands
/// elsewhere, and a configuration must be readable aloud.
struct YamlReader: ~Copyable {
    private let parser: UnsafeMutablePointer<yaml_parser_t>
    private let input: UnsafeMutableBufferPointer<UInt8>

    /// The document in `bytes`; nil when there is none, as in a file of comments.
    ///
    /// - Complexity: O(bytes), apart from duplicate keys, which cost O(keys) a mapping
    static func document(in bytes: [UInt8]) throws(YamlError) -> YamlNode? {
        guard bytes.count <= YamlLimits.bytesMax else {
            throw YamlError(
                place: Place(line: 1, column: 1), wrong: "the file has more than \(YamlLimits.bytesMax) bytes"
            )
        }
        // libyaml would stop at a NUL or an invalid byte with an offset instead of a line.
        if let broken = firstUnreadable(in: bytes) {
            throw YamlError(place: broken, wrong: "this is not UTF-8 text", write: "the file in UTF-8")
        }
        let reader = try YamlReader(bytes)
        return try reader.readDocument()
    }

    private init(_ bytes: [UInt8]) throws(YamlError) {
        input = .allocate(capacity: bytes.count)
        _ = input.initialize(from: bytes)
        parser = .allocate(capacity: 1)
        guard yaml_parser_initialize(parser) == 1 else {
            input.deallocate()
            parser.deallocate()
            throw YamlError(place: Place(line: 1, column: 1), wrong: "no memory to read the file")
        }
        yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
        yaml_parser_set_input_string(parser, input.baseAddress, input.count)
    }

    deinit {
        yaml_parser_delete(parser)
        parser.deallocate()
        input.deallocate()
    }

    private func readDocument() throws(YamlError) -> YamlNode? {
        while true {
            let event = try next()
            switch event.what {
            case .streamStart, .documentStart:
                continue
            case .streamEnd:
                return nil
            case .scalar, .sequenceStart, .mappingStart:
                let node = try readNode(event, depth: 0)
                try expectEnd()
                return node
            case .sequenceEnd, .mappingEnd, .documentEnd:
                throw YamlError(place: event.place, wrong: "a list or mapping ends that never began")
            }
        }
    }

    private func expectEnd() throws(YamlError) {
        while true {
            let event = try next()
            switch event.what {
            case .streamEnd:
                return
            case .documentEnd:
                continue
            case .streamStart, .documentStart, .scalar, .sequenceStart, .mappingStart, .sequenceEnd,
                .mappingEnd:
                throw YamlError(
                    place: event.place, wrong: "a second document begins here",
                    write: "everything in one document, without `---` between")
            }
        }
    }

    private func readNode(_ event: Event, depth: Int) throws(YamlError) -> YamlNode {
        guard depth < YamlLimits.depthMax else {
            throw YamlError(
                place: event.place,
                wrong: "lists and mappings are nested more than \(YamlLimits.depthMax) deep")
        }
        switch event.what {
        case .scalar(let scalar):
            return YamlNode(place: event.place, content: .scalar(scalar))
        case .sequenceStart:
            return YamlNode(place: event.place, content: .sequence(try readItems(depth: depth)))
        case .mappingStart:
            return YamlNode(place: event.place, content: .mapping(try readEntries(depth: depth)))
        case .streamStart, .documentStart, .sequenceEnd, .mappingEnd, .documentEnd, .streamEnd:
            throw YamlError(place: event.place, wrong: "a value is missing here")
        }
    }

    private func readItems(depth: Int) throws(YamlError) -> [YamlNode] {
        var items: [YamlNode] = []
        while true {
            let event = try next()
            if case .sequenceEnd = event.what { return items }
            items.append(try readNode(event, depth: depth + 1))
        }
    }

    private func readEntries(depth: Int) throws(YamlError) -> [YamlNode.Entry] {
        var entries: [YamlNode.Entry] = []
        var places: [String: Place] = [:]
        while true {
            let event = try next()
            if case .mappingEnd = event.what { return entries }
            guard case .scalar(let key) = event.what else {
                throw YamlError(place: event.place, wrong: "a key must be a word", write: "key: value")
            }
            if let earlier = places.updateValue(event.place, forKey: key.text) {
                throw YamlError(
                    place: event.place, wrong: "\"\(key.text)\" is already written in line \(earlier.line)",
                    write: "it once")
            }
            let value = try readNode(try next(), depth: depth + 1)
            entries.append(YamlNode.Entry(key: key.text, keyPlace: event.place, value: value))
        }
    }

    // MARK: libyaml

    private struct Event {
        enum What {
            case streamStart, streamEnd, documentStart, documentEnd
            case scalar(YamlNode.Scalar)
            case sequenceStart, sequenceEnd, mappingStart, mappingEnd
        }
        var what: What
        var place: Place
    }

    private func next() throws(YamlError) -> Event {
        var event = yaml_event_t()
        guard yaml_parser_parse(parser, &event) == 1 else { throw syntaxError() }
        defer { yaml_event_delete(&event) }
        let place = Place(event.start_mark)
        let what: Event.What
        switch event.type {
        case YAML_STREAM_START_EVENT: what = .streamStart
        case YAML_STREAM_END_EVENT: what = .streamEnd
        case YAML_DOCUMENT_START_EVENT: what = .documentStart
        case YAML_DOCUMENT_END_EVENT: what = .documentEnd
        case YAML_SEQUENCE_END_EVENT: what = .sequenceEnd
        case YAML_MAPPING_END_EVENT: what = .mappingEnd
        case YAML_SEQUENCE_START_EVENT:
            let start = event.data.sequence_start
            try refuse(anchor: start.anchor, tag: start.tag, at: place)
            what = .sequenceStart
        case YAML_MAPPING_START_EVENT:
            let start = event.data.mapping_start
            try refuse(anchor: start.anchor, tag: start.tag, at: place)
            what = .mappingStart
        case YAML_SCALAR_EVENT:
            let scalar = event.data.scalar
            try refuse(anchor: scalar.anchor, tag: scalar.tag, at: place)
            let text = String(
                decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length), as: UTF8.self)
            what = .scalar(YamlNode.Scalar(text: text, isPlain: scalar.style == YAML_PLAIN_SCALAR_STYLE))
        case YAML_ALIAS_EVENT:
            throw YamlError(
                place: place, wrong: "aliases (*name) are not understood here", write: "the value itself")
        default:
            throw YamlError(place: place, wrong: "this YAML is not understood here")
        }
        return Event(what: what, place: place)
    }

    private func refuse(
        anchor: UnsafeMutablePointer<yaml_char_t>?, tag: UnsafeMutablePointer<yaml_char_t>?, at place: Place
    ) throws(YamlError) {
        if anchor != nil {
            throw YamlError(
                place: place, wrong: "anchors (&name) are not understood here", write: "the value itself")
        }
        if tag != nil {
            throw YamlError(
                place: place, wrong: "tags (!name) are not understood here",
                write: "the value without its tag")
        }
    }

    private func syntaxError() -> YamlError {
        let place = Place(parser.pointee.problem_mark)
        let problem = parser.pointee.problem.map { String(cString: $0) } ?? "not enough memory"
        // The commonest of all mistakes deserves better than libyaml's sentence.
        if problem.contains("cannot start any token"), character(at: parser.pointee.problem_mark) == 9 {
            return YamlError(place: place, wrong: "a tab cannot indent YAML", write: "spaces")
        }
        return YamlError(place: place, wrong: "this is not valid YAML: \(problem)")
    }

    private func character(at mark: yaml_mark_t) -> UInt8? {
        // `index` counts characters; it is the byte only while the text before it is ASCII, which is
        // enough for choosing a better sentence.
        mark.index < input.count ? input[mark.index] : nil
    }

    private static func firstUnreadable(in bytes: [UInt8]) -> Place? {
        var decoder = Unicode.UTF8.ForwardParser()
        var iterator = bytes.makeIterator()
        var place = Place(line: 1, column: 1)
        while true {
            switch decoder.parseScalar(from: &iterator) {
            case .valid(let scalar):
                if scalar.first == 0 { return place }
                if scalar.first == UInt8(ascii: "\n") {
                    place = Place(line: place.line + 1, column: 1)
                } else {
                    place.column += 1
                }
            case .error:
                return place
            case .emptyInput:
                return nil
            }
        }
    }
}

extension Place {
    fileprivate init(_ mark: yaml_mark_t) {
        self.init(line: mark.line + 1, column: mark.column + 1)
    }
}
