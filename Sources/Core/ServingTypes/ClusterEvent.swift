/// Something that people want to know afterwards; the scheduler keeps the latest ones.
package struct ClusterEvent: Hashable, Sendable, Codable {
    package enum Kind: String, Sendable, CaseIterable, Codable {
        /// A worker came, went, or changed its state.
        case membership
        /// A worker is to do something else, or does it.
        case role
        /// A spare takes the place of another worker.
        case substitution
        case group
        case upgrade
        /// Other numbers of workers are aimed at.
        case numbers
        /// Something takes longer than it should.
        case delay
        /// A person asked for something.
        case administration
        /// A scheduler began or ceased to lead.
        case leadership
        /// The cluster file was read, or could not be.
        case rules
        case other
    }

    /// Rises by one from event to event, over all schedulers that share a store.
    package var number: UInt64
    /// Milliseconds since 1970.
    package var unixMilliseconds: UInt64
    package var kind: Kind
    /// The worker, scenario, person or scheduler it is about.
    package var subject: String
    package var words: String

    package init(
        number: UInt64, unixMilliseconds: UInt64, kind: Kind, subject: String, words: String
    ) {
        self.number = number
        self.unixMilliseconds = unixMilliseconds
        self.kind = kind
        self.subject = subject
        self.words = words
    }
}
