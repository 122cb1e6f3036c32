# The quickstart on a CPU: docker build -t msbal . && docker run --rm -t msbal
# Other data: docker run --rm -t -v /path/to/data:/data -v "$PWD/runs:/home/msbal/runs" msbal train /data/spec.yaml
FROM python:3.11-slim

# PyTorch's own index has wheels for the CPU alone, a tenth of the size; pip takes them, as +cpu is the later version.
COPY constraints.txt /tmp/
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu torch torchvision \
    && useradd --create-home --uid 1000 msbal

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY msbal msbal
COPY backends/torchvision backends/torchvision
# Both at once: the backend requires msbal of its own version, which no index is asked for.
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt ".[plots]" ./backends/torchvision

USER 1000
WORKDIR /home/msbal
COPY --chown=1000 examples/quickstart.yaml ./
RUN mkdir runs
ENV HOME=/home/msbal

ENTRYPOINT ["msbal"]
CMD ["train", "quickstart.yaml", "--force"]
