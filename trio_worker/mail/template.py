"""Pure. Templates of the email types: compiled once, tested with samples, filled or rendered for each mail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jinja2
from attrs import field
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

from trio_worker.jobs.email_type import TEMPLATE_VARIABLES
from trio_worker.jobs.fault import Fault
from trio_worker.jobs.job import Templated, sample_jobs
from trio_worker.mail.body import BodySkeleton, Insertion, Texts, find_body_skeleton
from trio_worker.mail.counted_filters import counted_filter
from trio_worker.mail.counted_tree import Counting
from trio_worker.mail.figures import figure, figures, label
from trio_worker.mail.mime import canonical
from trio_worker.mail.sandbox import Sandbox
from trio_worker.mail.skeleton import RenderedText, Skeleton, find_skeleton, percent
from trio_worker.mail.work import TooMuchError, begin_count, join_pieces
from trio_worker.records import frozen
from trio_worker.typed_frozen import typed_frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

    from trio_worker.jobs.email_type import Catalogue, TypeSpec
    from trio_worker.jobs.job import Job
    from trio_worker.jobs.strict_json import Json

PARTS = ("subject.j2", "text.j2", "html.j2")

# The exceptions that a template can raise at run time, as it is foreign code. MemoryError: an endless repetition.
_TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,  # and RecursionError: a macro that calls itself
    TypeError,
    ValueError,
)


@typed_frozen
class Rendered:
    """The subject of one mail, without white space around it, and its body."""

    subject: str
    body: Texts | Insertion


@frozen
class Part:
    """One compiled template, and its skeleton if it has one."""

    template: jinja2.Template
    skeleton: Skeleton | None

    variables: Mapping[str, object] = field(repr=False)
    """The variables that the template can use besides the fields of its type."""

    def fill(self, fields: Mapping[str, Json]) -> RenderedText:
        """Return the text of one mail."""
        if self.skeleton is not None:
            return self.skeleton.fill(fields)
        return RenderedText(canonical(_render(self.template, {**self.variables, **fields})))


@frozen
class Templates:
    """The compiled templates of one email type."""

    subject: Part
    text: Part
    html: Part | None
    names: frozenset[str] = field(repr=False)
    """The names of all templates, to find them in a traceback."""
    _subject: str | None = field(init=False, repr=False)
    """The subject, if it is the same for all mails."""
    _body: BodySkeleton | None = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        skeleton = self.subject.skeleton
        constant = None if skeleton is None or skeleton.placeholders else _subject_of(skeleton.fill({}))
        object.__setattr__(self, "_subject", constant)
        skeletons = [(subtype, part.skeleton) for subtype, part in self._parts if part.skeleton is not None]
        is_whole = len(skeletons) == len(self._parts)
        object.__setattr__(self, "_body", find_body_skeleton(skeletons) if is_whole else None)

    @property
    def _parts(self) -> tuple[tuple[str, Part], ...]:
        return (("plain", self.text),) if self.html is None else (("plain", self.text), ("html", self.html))

    def render(self, fields: Mapping[str, Json]) -> Rendered | Fault:
        """Render all parts; a fault names the template, its line and the kind of error, but no value."""
        rendered = self._render(fields)
        if isinstance(rendered, Rendered):
            return rendered
        what = str(rendered) if isinstance(rendered, TooMuchError) else type(rendered).__name__
        return Fault(self._place(rendered), f"fails: {what}")

    def prove(self, fields: Mapping[str, Json]) -> Fault | None:
        """Render with samples; return a failure or an empty subject, fully explained for the template's author."""
        rendered = self._render(fields)
        if isinstance(rendered, Rendered):
            # An empty subject is allowed in a job, but with samples it is a mistake in the template.
            return None if rendered.subject else Fault(self.subject.template.name or "", "is empty (with the samples)")
        what = f"fails on the samples: {rendered}"
        if isinstance(rendered, jinja2.TemplateNotFound):
            how = "is named as foot.j2 or FOLDER/text.j2 in mail.template_dirs, and by no other path"
            what = f"there is no template {rendered}; one {how}"
        return Fault(self._place(rendered), what)

    def _render(self, fields: Mapping[str, Json]) -> Rendered | Exception:
        try:
            subject = _subject_of(self.subject.fill(fields)) if self._subject is None else self._subject
            if self._body is not None:
                return Rendered(subject, self._body.fill(fields))
            return Rendered(subject, Texts(tuple((subtype, part.fill(fields)) for subtype, part in self._parts)))
        except _TEMPLATE_ERRORS as error:
            return error

    def _place(self, error: Exception) -> str:
        """Return ``template:line`` of the innermost template in the traceback."""
        told = error.template_name if isinstance(error, TooMuchError) else ""
        place = told or self.subject.template.name or ""
        frame = error.__traceback__
        while frame is not None:
            name = frame.tb_frame.f_code.co_filename
            if name in self.names:
                place = f"{name}:{frame.tb_lineno}"
            frame = frame.tb_next
        if isinstance(error, jinja2.TemplateSyntaxError) and error.name is not None:
            place = f"{error.name}:{error.lineno}"
        return place


def _subject_of(text: RenderedText) -> str:
    return text.octets.decode().strip()


def _render(template: jinja2.Template, names: dict[str, Any]) -> str:
    begin_count()
    environment = template.environment
    # Template.render would make a second dict of the names, which takes as long as rendering.
    context = environment.context_class(environment, names, template.name, template.blocks)
    try:
        return join_pieces(template.root_render_func(context))
    except TooMuchError as error:
        error.template_name = template.name or ""
        environment.handle_exception()
    except _TEMPLATE_ERRORS:  # raised again with the template's lines in the traceback, as by Template.render
        environment.handle_exception()


def compile_templates(catalogue: Catalogue, variables: Mapping[str, str]) -> tuple[dict[str, Templates], list[Fault]]:
    """Compile the templates of a catalogue; return those of types without faults, and all faults.

    Faults are of syntax, unknown names, and failures with the samples.

    ``variables`` can be used in every template, besides the fields of its type (`TEMPLATE_VARIABLES`).
    """
    trees: dict[str, nodes.Template] = {}
    environment = _Environment(trees, variables)
    compiled: dict[str, Templates] = {}
    faults: list[Fault] = []
    broken = {}
    for name, source in catalogue.sources.items():
        try:
            trees[name] = environment.parse(source, name)
        except jinja2.TemplateSyntaxError as error:
            broken[name] = _fault_of_syntax(name, error)
    for name in tuple(trees):  # with all trees at hand: what one includes is counted in it
        try:
            environment.get_template(name)
        except jinja2.TemplateSyntaxError as error:
            broken[name] = _fault_of_syntax(name, error)
    faults.extend(broken.values())
    extended = {name: list(tree.find_all(nodes.Extends)) for name, tree in trees.items()}
    for spec in catalogue.types.values():
        found = {
            part: f"{spec.email_type}/{part}" for part in PARTS if f"{spec.email_type}/{part}" in catalogue.sources
        }
        if any(name in broken for name in found.values()):
            continue
        parts = {part: _part(environment, name, trees, extended, spec) for part, name in found.items()}
        names = frozenset(catalogue.sources)
        templates = Templates(parts["subject.j2"], parts["text.j2"], parts.get("html.j2"), names)
        unknown = [fault for name in found.values() for fault in _unknown_names(environment, name, trees[name], spec)]
        failed = unknown or (() if broken else tuple(_proofs(templates, spec)))
        faults.extend(failed)
        if not failed:
            compiled[spec.email_type] = templates
    return compiled, faults


def _fault_of_syntax(name: str, error: jinja2.TemplateSyntaxError) -> Fault:
    return Fault(f"{error.name or name}:{error.lineno}", error.message or "is not a valid template")


class _Parsed(jinja2.BaseLoader):
    """Loads templates from syntax trees, so that their sources are not parsed again."""

    def __init__(self, trees: Mapping[str, nodes.Template]) -> None:
        self.trees = trees
        self._counting: Counting | None = None

    def load(
        self,
        environment: jinja2.Environment,
        name: str,
        globals: MutableMapping[str, Any] | None = None,  # noqa: A002  jinja2's own name
    ) -> jinja2.Template:
        if name not in self.trees:
            raise jinja2.TemplateNotFound(name)
        begin_count()  # Jinja computes with constants when it compiles
        if self._counting is None:
            self._counting = Counting(self.trees)
            if isinstance(environment, Sandbox):
                environment.block_steps = self._counting.steps_of_largest_block()
        self._counting.visit(self.trees[name])
        code = environment.compile(self.trees[name], name, name)
        return environment.template_class.from_code(environment, code, globals or {})


class _NamesNoted(CodeGenerator):
    """Compiles a template, and notes the names that it takes from outside; `jinja2.meta` would generate it again."""

    environment: _Environment

    def enter_frame(self, frame: Frame) -> None:
        """Note the names that a scope of the template resolves."""
        super().enter_frame(frame)
        resolved = {name for action, name in frame.symbols.loads.values() if action == "resolve" and name is not None}
        self.environment.taken.setdefault(self.name or "", set()).update(resolved)


class _Environment(Sandbox):
    """Compiles templates from their syntax trees; ``taken`` has the names that each compiled one takes from outside."""

    code_generator_class = _NamesNoted

    def __init__(self, trees: Mapping[str, nodes.Template], variables: Mapping[str, str]) -> None:
        super().__init__(
            loader=_Parsed(trees),
            undefined=jinja2.StrictUndefined,
            autoescape=_is_html,
            finalize=_nothing_for_none,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            cache_size=-1,
        )
        self.globals.update(variables)
        self.filters.update({each.__name__: counted_filter(each.__name__, each) for each in (percent, figure, label)})
        self.filters["figures"] = figures  # looks at no more than it shows
        self.taken: dict[str, set[str]] = {}


def _is_html(name: str | None) -> bool:
    return name is None or name.endswith("html.j2")


def _nothing_for_none(value: Any) -> Any:
    return "" if value is None else value


def _part(
    environment: jinja2.Environment,
    name: str,
    trees: Mapping[str, nodes.Template],
    extended: Mapping[str, list[nodes.Extends]],
    spec: TypeSpec,
) -> Part:
    """Return one template of a type; ``trees`` are the syntax trees of all templates without a syntax error.

    ``extended`` says where each of them extends others.
    """
    template = environment.get_template(name)
    known = dict(environment.globals)
    chain = [name]
    while places := extended[chain[-1]]:
        named = places[0].template
        parent = str(named.value) if isinstance(named, nodes.Const) else ""
        # A template that chooses between parents has no skeleton.
        if len(places) > 1 or len(chain) > len(trees) or parent not in trees:
            return Part(template, None, known)
        chain.append(parent)
    trees_of_chain = [trees[each] for each in chain]
    return Part(
        template, find_skeleton(trees_of_chain, spec, lambda fields: _render(template, {**known, **fields})), known
    )


def _unknown_names(environment: _Environment, name: str, tree: nodes.Template, spec: TypeSpec) -> Iterator[Fault]:
    """Yield the names that a template uses and that neither its type's fields nor the template declare."""
    unknown = environment.taken.get(name, set()) - {declared.name for declared in spec.fields}
    unknown -= {*TEMPLATE_VARIABLES, *environment.globals}
    if not unknown:
        return
    unknown -= {found.name for found in tree.find_all(nodes.Name) if found.ctx != "load"}
    unknown -= {found.target for found in tree.find_all(nodes.Import)}
    unknown -= {
        alias[1] if isinstance(alias, tuple) else alias
        for found in tree.find_all(nodes.FromImport)
        for alias in found.names
    }
    unknown -= {found.name for found in tree.find_all(nodes.Macro)}
    for each in sorted(unknown):
        line = min(found.lineno for found in tree.find_all(nodes.Name) if found.name == each)
        yield Fault(f"{name}:{line}", f"uses {each!r}, which fields.toml does not declare")


def _proofs(templates: Templates, spec: TypeSpec) -> Iterator[Fault]:
    """Yield the first failure: with all samples, then with those of only the required fields."""
    for job in sample_jobs(spec):
        if fault := templates.prove(_fields(job)):
            yield fault
            return


def _fields(job: Job) -> Mapping[str, Json]:
    return job.content.fields if isinstance(job.content, Templated) else {}
